import { DivergedError, UserError } from "../errors.ts";
import { number } from "../run/format.ts";
import { type Progress, silentProgress, type StageInfo } from "../run/progress.ts";
import { type CellJob, runCell } from "./run-cell.ts";
import { type Answer, requestSchema } from "./protocol.ts";

/** Entry of a process that runs one cell after another, as the experiment tells it to. */

const send = (answer: Answer): void => void process.send?.(answer);

let controller = new AbortController();

/** At most a few messages a second. */
let last = -Infinity;
function report(text: string, done: number): void {
  const now = performance.now();
  if (now - last < 250 && done < 1) return;
  last = now;
  send({ kind: "progress", text, done: Math.min(1, Math.max(0, done)) });
}

function progress(): Progress {
  let info: StageInfo | undefined;
  return {
    ...silentProgress,
    stage: (begun) => void (info = begun),
    step({ index, done, metrics }) {
      const { name, position, of } = info ?? { name: "", position: 1, of: 1 };
      const main = ["reward", "loss"].find((key) => key in metrics);
      const text = `${name} step ${index + 1}${main === undefined ? "" : `, ${main} ${number(metrics[main])}`}`;
      report(text, (position - 1 + done) / of);
    },
  };
}

async function run(job: CellJob): Promise<void> {
  controller = new AbortController();
  try {
    const complete = await runCell(job, {
      progress: progress(),
      evaluating: (what, done, of) =>
        report(`${what}: ${done}/${of} samples`, job.profile === undefined ? 0.99 : done / of),
      signal: controller.signal,
    });
    send({ kind: complete ? "complete" : "stopped" });
  } catch (error) {
    const user = error instanceof UserError;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    send({ kind: "failed", message: user ? error.message : text, user, diverged: error instanceof DivergedError });
  }
}

process.on("message", (message) => {
  const request = requestSchema.parse(message);
  if (request.kind === "stop") controller.abort();
  else void run(request.job);
});
// A terminal's Ctrl-C reaches every process of the group; the experiment says what it means.
process.on("SIGINT", () => {}).on("SIGTERM", () => {});
// An experiment that is gone waits for nobody, and its successor must find the cells free.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
