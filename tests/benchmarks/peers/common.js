"use strict";
// Obeys "SECONDS HZ BYTES" lines like the C floor; `send(text)` writes to every client and says how many there are.
const readline = require("node:readline");

exports.obey = (send) => {
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const [seconds, hz, bytes] = line.split(" ").map(Number);
    const text = "x".repeat(bytes);
    const total = Math.floor(seconds * hz);
    const before = process.cpuUsage();
    const began = process.hrtime.bigint();
    let ticks = 0;
    let deliveries = 0;
    const tick = () => {
      deliveries += send(text);
      ticks += 1;
      if (ticks === total) {
        // What was queued goes out before the account is closed.
        setTimeout(() => {
          const used = process.cpuUsage(before);
          console.log(deliveries, (used.user + used.system) / 1e6);
        }, 100);
        return;
      }
      const due = Number(began) / 1e6 + ((ticks + 1) * 1000) / hz;
      setTimeout(tick, Math.max(0, due - Number(process.hrtime.bigint()) / 1e6));
    };
    setTimeout(tick, 1000 / hz);
  }).on("close", () => process.exit(0));
};
