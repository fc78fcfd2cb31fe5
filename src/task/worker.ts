/** Runs in a reward thread: loads the task's file, then grades one item after another. */
import { parentPort, workerData } from "node:worker_threads";
import { loadDefinition } from "./file.ts";
import { type Answer, OUTPUT_LIMIT, startSchema } from "./protocol.ts";
import { describeThrown, failedGrade, gradeOf, type Item } from "./reward.ts";
import type { TaskDefinition } from "./types.ts";

let printed = 0;

function say(answer: Answer): void {
  parentPort?.postMessage(answer);
}

/** Console output leaves by message: a stream would hold it back while a synchronous loop prints. */
function print(chunk: string | Uint8Array): boolean {
  const text = typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("utf8");
  const before = printed;
  printed += text.length;
  if (printed <= OUTPUT_LIMIT) say({ kind: "output", text });
  else if (before <= OUTPUT_LIMIT) say({ kind: "flood" });
  return true;
}
process.stdout.write = print;
process.stderr.write = print;

async function grade(definition: TaskDefinition, item: Item): Promise<void> {
  printed = 0;
  try {
    const reward: unknown = await definition.reward?.(item.problem, item.response);
    say({ kind: "graded", grade: gradeOf(item, reward, definition.weights) });
  } catch (error) {
    say({ kind: "graded", grade: failedGrade(item, describeThrown(error)) });
  }
}

try {
  const definition = await loadDefinition(startSchema.parse(workerData).file);
  parentPort?.on("message", (item: Item) => void grade(definition, item));
  say({ kind: "ready" });
} catch (error) {
  say({ kind: "broken", message: error instanceof Error ? error.message : String(error) });
}
