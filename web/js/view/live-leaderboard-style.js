// Owns the look of <live-leaderboard>. Adopted, never written into the page, so that a strict policy allows it.
// Every colour can be set from outside by its variable; every piece is a part.

const light = `--ll-sheet:#fff;--ll-ink:#14211b;--ll-ink-2:#4f5f57;--ll-rule:#dde5df;--ll-bar:#cfe0d6;--ll-up:#0b6e49;--ll-down:#a0402a;
--ll-me:#123b2d;--ll-me-ink:#f4f7f2;--ll-me-2:#b7cfc3;--ll-me-bar:#2f6b54;--ll-hover:#eaf0eb;--ll-lift:0 4px 14px rgba(8,28,20,.28);color-scheme:light;`;
const dark = `--ll-sheet:#0f1a16;--ll-ink:#e9f0eb;--ll-ink-2:#9fb2a8;--ll-rule:#21302a;--ll-bar:#244438;--ll-up:#74d3a6;--ll-down:#f0a08a;
--ll-me:#c9ded1;--ll-me-ink:#0e2018;--ll-me-2:#2f4a3d;--ll-me-bar:#a3c4b2;--ll-hover:#16241e;--ll-lift:0 4px 16px rgba(0,0,0,.7);color-scheme:dark;`;

export const css = `
:host{display:block;--ll-lamp:#ffd24a;--ll-on-lamp:#17231d;${light}
--ll-text:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
--ll-num:"DIN Alternate",Bahnschrift,"Avenir Next Condensed","Roboto Condensed","Liberation Sans Narrow",system-ui,sans-serif;--ll-row:44px}
@media (prefers-color-scheme:dark){:host(:not([theme=light])){${dark}}}
:host([theme=dark]){${dark}}
:host([hidden]),[hidden]{display:none!important}
*{box-sizing:border-box}
section{background:var(--ll-sheet);color:var(--ll-ink);border-radius:4px;overflow:hidden;font:400 15px/1.4 var(--ll-text)}
header{display:flex;justify-content:space-between;align-items:center;gap:12px;padding:12px 16px}
.title{margin:0;font:700 20px/1.2 var(--ll-num)}
.status{display:flex;align-items:center;gap:8px;margin:0;font:600 14px/1 var(--ll-text);color:var(--ll-ink-2)}
.status::before{content:"";width:10px;height:10px;border:2px solid var(--ll-ink-2)}
.status.on::before{background:var(--ll-lamp);border-color:var(--ll-ink)}
.empty{margin:0;padding:24px 16px;text-align:center;color:var(--ll-ink-2)}
ol{position:relative;margin:0;padding:0;list-style:none;contain:layout style}
.vh{position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.row{position:relative;display:grid;grid-template-columns:minmax(40px,auto) minmax(0,1fr) 52px minmax(64px,max-content) auto;gap:12px;align-items:center;height:var(--ll-row);padding:0 16px;background:var(--ll-sheet);box-shadow:inset 0 -1px var(--ll-rule);contain:strict;content-visibility:auto}
.row>*{grid-row:1}
.rank{text-align:right;color:var(--ll-ink-2)}
.rank,.score{font:700 20px/1 var(--ll-num);font-variant-numeric:tabular-nums;white-space:nowrap}
.who{grid-column:2;display:flex;align-items:center;gap:8px;min-width:0}
.name{min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font:500 16px/1.4 var(--ll-text)}
.meta{flex:0 9 auto;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--ll-ink-2);font:400 14px/1.4 var(--ll-text)}
.you{flex:none;padding:1px 6px;border:1px solid currentcolor;border-radius:3px;font:600 12px/1.3 var(--ll-text)}
.change{grid-column:3;display:flex;align-items:center;justify-content:flex-end;gap:4px;font:700 14px/1 var(--ll-num);font-variant-numeric:tabular-nums;white-space:nowrap}
.change i{display:none;width:9px;height:8px;background:currentcolor}
.change[data-kind=up]{color:var(--ll-up)}.change[data-kind=down]{color:var(--ll-down)}
.change[data-kind=up] i{display:block;clip-path:polygon(50% 0,100% 100%,0 100%)}
.change[data-kind=down] i{display:block;clip-path:polygon(0 0,100% 0,50% 100%)}
.change[data-kind=new]{justify-self:end;padding:2px 5px;border:1px solid currentcolor;border-radius:3px;color:var(--ll-ink-2);font-size:12px}
.gain{grid-column:4;visibility:hidden;text-align:right;color:var(--ll-up);font:700 16px/1 var(--ll-num);font-variant-numeric:tabular-nums;white-space:nowrap}
.score{position:relative;grid-column:5;text-align:right}
.plate{position:absolute;inset:-5px -6px;padding:5px 6px;border-radius:3px;background:var(--ll-lamp);color:var(--ll-on-lamp);visibility:hidden}
.lit{visibility:visible}
.bar{position:absolute;left:0;right:0;bottom:1px;height:4px;background:var(--ll-bar);transform-origin:0 50%;transform:scaleX(0);}
.rising{z-index:2;background:var(--ll-hover);box-shadow:var(--ll-lift)}
.me{background:var(--ll-me);color:var(--ll-me-ink);box-shadow:none}
.me .rank,.me .change,.me .gain,.me .meta{color:var(--ll-me-2)}
.me .bar{background:var(--ll-me-bar)}
.old .row:not(.me){color:var(--ll-ink-2)}
.narrow .row{grid-template-columns:minmax(32px,auto) minmax(0,1fr) auto auto;gap:10px}
.narrow .who.has-meta{display:grid;grid-template-columns:minmax(0,max-content) auto;justify-content:start;gap:0 8px}
.narrow .has-meta .name{line-height:1.2}.narrow .has-meta .meta{grid-area:2/1/3/3;font-size:12px;line-height:1.2}
.narrow .gain{display:none}.narrow .score{grid-column:4}
@media (forced-colors:active){.me{outline:2px solid Highlight;outline-offset:-2px}.change i,.bar,.status.on::before{forced-color-adjust:none;background:CanvasText}
.plate{forced-color-adjust:none;background:Highlight;color:HighlightText}}
`;
