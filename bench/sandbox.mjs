// Programs a second of the sandbox, with and without the guarantee between programs: node bench/sandbox.mjs svamp_python_sdp.json
import { readFileSync } from "node:fs";
import { openSandbox } from "../dist/sandbox/index.js";

const rows = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const restore of [true, false]) {
  const start = performance.now();
  const sandbox = openSandbox({ workers: 2, restore });
  await sandbox.run(["", ""]);
  const ready = performance.now();
  const rates = [];
  let right = 0;
  for (let repeat = 0; repeat < 3; repeat++) {
    const began = performance.now();
    const outcomes = await sandbox.run(rows.map((row) => row.answer_cot));
    rates.push(Math.round(rows.length / ((performance.now() - began) / 1000)));
    right = outcomes.filter(({ number }, i) => Math.abs(number - Number(rows[i].answer_value)) <= 0.01).length;
  }
  const started = ((ready - start) / 1000).toFixed(1);
  console.log(
    `node ${process.version}, guarantee ${restore}: ${right} of ${rows.length} right, ${rates.join(", ")} programs/s, start-up ${started} s`,
  );
  await sandbox.close();
}
