import { UserError } from "../errors.ts";
import { memory } from "../runtime/index.ts";
import type { Answer } from "./protocol.ts";
import { watched } from "./quiet.ts";
import { workloads } from "./workloads.ts";

// The process of one workload, so that its peak memory is its own: it repeats whenever the bench sends a message.

const tell = (answer: Answer) => process.send?.(answer);

const attempt = async (work: () => Promise<Answer>): Promise<void> => {
  try {
    tell(await work());
  } catch (error) {
    const user = error instanceof UserError;
    tell({
      kind: "failed",
      user,
      message: user ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    process.disconnect();
  }
};

await attempt(async () => {
  const make = Object.entries(workloads).find(([name]) => name === process.argv[2])?.[1];
  if (!make) throw new Error(`no workload ${process.argv[2]}`);
  const { plan, facts, repeat } = await make();
  process.on("message", () =>
    attempt(async () => {
      const { result, quiet } = await watched(repeat);
      return { kind: "repeat", values: result, quiet, peak: memory().peak };
    }),
  );
  return { kind: "ready", plan, facts, peak: memory().peak };
});
