import { relative } from "node:path";
import { bestText } from "../run/curve-view.ts";
import { number } from "../run/format.ts";
import { createProgress, type Progress } from "../run/progress.ts";
import type { RunResult } from "../run/train.ts";
import { printResult } from "./output.ts";

/**
 * Runs with live progress on standard error. Ctrl-C ends the run after the step in progress, with a checkpoint; a second one stops
 * at once.
 */
export async function watchRun(
  options: { json?: boolean },
  work: (watching: { progress: Progress; signal: AbortSignal }) => Promise<RunResult>,
): Promise<void> {
  const progress = createProgress(process.stderr);
  const watched = { note: (text: string) => progress.note(text), close: () => progress.end() };
  const words = "stopping after this step, with a checkpoint; Ctrl-C again stops at once";
  await untilInterrupted(watched, words, async (signal) => {
    const result = await work({ progress, signal });
    printResult(options.json, result, () => summary(result));
    if (!result.complete) process.exitCode = 130;
  });
}

/** Works until it is done or interrupted: the first Ctrl-C aborts the signal and says so, a second one ends the process. */
export async function untilInterrupted<T>(
  progress: { note(text: string): void; close(): void },
  words: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  let first = 0;
  const stop = () => {
    // A terminal signals the whole group and npm passes its own on: both are one Ctrl-C.
    if (controller.signal.aborted && performance.now() - first < 500) return;
    if (controller.signal.aborted) {
      progress.close();
      process.exit(130);
    }
    first = performance.now();
    controller.abort();
    progress.note(words);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

function summary(result: RunResult): string {
  const dir = relative("", result.run) || ".";
  const lines = result.stages.map(({ name, steps, metrics }) => {
    const told = ["reward", "solveRate", "loss"].flatMap((key) => {
      const value = metrics[key];
      return typeof value === "number" ? [`${key} ${number(value)}`] : [];
    });
    return `${name}: ${[`${steps} steps`, ...told].join(", ")}`;
  });
  if (result.best !== undefined) lines.push(bestText(result.best));
  lines.push(
    result.complete
      ? `complete: ${dir}\nevaluate it with: rifft eval --model ${dir}`
      : `interrupted; continue with: rifft resume ${dir}`,
  );
  return lines.join("\n");
}
