// Speed of the grader on one core: node bench/grade.mjs [JSON lines with "answer"] (after npm run build).
import { readFileSync } from "node:fs";
import { equivalent, grade } from "../dist/grade/index.js";

const SECONDS = 3;

/** Grades a second over a list of pairs, and percentiles of one grade in milliseconds. */
function measure(name, run, items) {
  for (const item of items) run(item);
  const times = [];
  let count = 0;
  const start = process.cpuUsage();
  const spent = () => {
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1e6;
  };
  while (spent() < SECONDS)
    for (const item of items) {
      run(item);
      count++;
    }
  const rate = count / spent();
  for (const item of items) {
    const before = performance.now();
    run(item);
    times.push(performance.now() - before);
  }
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))].toFixed(3);
  console.log(`${name}: ${Math.round(rate)} a second; ms: median ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)}`);
}

const integers = Array.from({ length: 5000 }, (_, i) => String((i * 7919) % 100_003));
measure("integers against themselves", (gold) => equivalent(gold, gold), integers);
measure("integers in GSM8K's responses", (gold) => grade(gold, `She has ${gold} in all.\n#### ${gold}`), integers);
if (process.argv[2] !== undefined) {
  const golds = readFileSync(process.argv[2], "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).answer);
  measure("golds of the file", (gold) => equivalent(gold, gold), golds);
  measure("golds parsed (with explain)", (gold) => equivalent(gold, gold, { explain: true }), golds);
}
