// Owns how a score is written and read as its leaderboard's format says: `1:02.345`, `12.50`. Pure, and the same whatever
// the viewer's language. Assumes whole scores in the smallest unit, exact within plus or minus 2^53 - 1.

const MS = 1000;
const pad = (value, digits) => String(value).padStart(digits, '0');

const WRITE = {
  integer: (amount) => String(amount),
  decimal: (amount, { places }) => {
    const digits = pad(amount, places + 1);
    return places ? `${digits.slice(0, -places)}.${digits.slice(-places)}` : digits;
  },
  duration: (amount, { unit }) => {
    const rest = unit === 'ms' ? amount % MS : 0;
    const seconds = unit === 'ms' ? (amount - rest) / MS : amount;
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    return `${h ? `${h}:${pad(m, 2)}` : m}:${pad(s, 2)}${unit === 'ms' ? `.${pad(rest, 3)}` : ''}`;
  },
};

const READ = {
  integer: (text) => (/^\d{1,16}$/.test(text) ? Number(text) : NaN),
  decimal: (text, { places }) => {
    const [, whole, part = ''] = /^(\d{1,16})(?:[.,](\d*))?$/.exec(text) ?? [];
    return whole === undefined || part.length > places ? NaN : Number(whole + part.padEnd(places, '0'));
  },
  duration: (text, { unit }) => {
    const [, h = 0, m = 0, s, part = ''] = /^(?:(?:(\d{1,13}):)?(\d{1,14}):)?(\d{1,16})(?:[.,](\d{1,3}))?$/.exec(text) ?? [];
    const isTooMuch = (h && m > 59) || (m && s > 59);
    if (s === undefined || isTooMuch || (part && unit !== 'ms')) return NaN;
    const seconds = Number(h) * 3600 + Number(m) * 60 + Number(s);
    return unit === 'ms' ? seconds * MS + Number(part.padEnd(3, '0')) : seconds;
  },
};

const known = (format) => ({ places: 0, unit: 's', ...format, kind: Object.hasOwn(WRITE, format?.kind ?? '') ? format.kind : 'integer' });

/** A score for people: `1:02.345`, `12.50`, `1234`. A format of a kind that is not known is read as `integer`. */
export function formatScore(format, score) {
  const all = known(format);
  return (score < 0 ? '-' : '') + WRITE[all.kind](Math.abs(score), all);
}

/** The score that somebody typed, null where it is none: `1:02.345` and `62.345` are the same duration. */
export function parseScore(format, typed) {
  const all = known(format);
  const [, sign, text] = /^([+\-\u2212]?)(.*)$/s.exec(typed.trim());
  const amount = READ[all.kind](text, all);
  return !Number.isSafeInteger(amount) ? null : sign && sign !== '+' && amount ? -amount : amount;
}
