import type { ChildProcess } from "node:child_process";
import { startProcess } from "../run/process.ts";
import { type Answer, answerSchema, type Request } from "./protocol.ts";
import type { CellJob } from "./run-cell.ts";

export type Outcome = Exclude<Answer, { kind: "progress" }>;

/** A job, and the id of the one that must be complete before it. */
export interface PoolJob {
  job: CellJob;
  after?: string;
}

export interface PoolOptions {
  /** How many run at once, each in a process of its own. */
  slots: number;
  /** Threads of each; as this process has them when absent. */
  threads?: number;
  /** Aborting it ends each job after what it is in the middle of. */
  signal: AbortSignal;
  onStart(id: string): void;
  onProgress(id: string, text: string, done: number): void;
  onEnd(id: string, outcome: Outcome): void;
}

/** Runs jobs side by side. One that fails does not stop the others, but those that need it. Ids of `complete` count as done. */
export async function runJobs(
  jobs: readonly PoolJob[],
  complete: ReadonlySet<string>,
  options: PoolOptions,
): Promise<Map<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const done = new Set(complete);
  const planned = new Set(jobs.map(({ job }) => job.id));
  let waiting = [...jobs];
  const running = new Map<CellProcess, Promise<void>>();
  const idle: CellProcess[] = [];
  const settle = (id: string, outcome: Outcome) => {
    outcomes.set(id, outcome);
    if (outcome.kind === "complete") done.add(id);
    options.onEnd(id, outcome);
  };
  const stop = () => running.forEach((_, process) => process.send({ kind: "stop" }));
  options.signal.addEventListener("abort", stop);
  try {
    for (;;) {
      if (options.signal.aborted) waiting = [];
      for (const { job, after } of waiting) {
        if (after === undefined || done.has(after) || (planned.has(after) && !outcomes.has(after))) continue;
        const message = `it starts from ${after}, which is not complete`;
        settle(job.id, { kind: "failed", message, user: true, diverged: false });
      }
      waiting = waiting.filter(({ job }) => !outcomes.has(job.id));
      const next = waiting.find(({ after }) => after === undefined || done.has(after));
      if (next !== undefined && running.size < options.slots) {
        waiting = waiting.filter((other) => other !== next);
        const process = idle.pop() ?? new CellProcess(options.threads);
        const { job } = next;
        options.onStart(job.id);
        const end = process
          .run(job, (text, share) => options.onProgress(job.id, text, share))
          .then((outcome) => {
            running.delete(process);
            if (process.alive) idle.push(process);
            settle(job.id, outcome);
          });
        running.set(process, end);
        continue;
      }
      if (running.size === 0) break;
      await Promise.race(running.values());
    }
  } finally {
    options.signal.removeEventListener("abort", stop);
    for (const process of [...idle, ...running.keys()]) process.kill();
  }
  return outcomes;
}

/** What a process printed last is kept for the report of its end. */
const STDERR = 2000;

class CellProcess {
  alive = true;
  private readonly child: ChildProcess;
  private printed = "";

  constructor(threads: number | undefined) {
    const env = threads === undefined ? {} : { RIFFT_THREADS: String(threads) };
    this.child = startProcess(import.meta.url, "./worker", { stdio: ["ignore", "ignore", "pipe", "ipc"], env });
    this.child.stderr?.on("data", (data: Buffer) => (this.printed = (this.printed + data.toString()).slice(-STDERR)));
  }

  send(request: Request): void {
    if (this.child.connected) this.child.send(request, () => {});
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  run(job: CellJob, onProgress: (text: string, done: number) => void): Promise<Outcome> {
    const { child } = this;
    return new Promise((resolve) => {
      const settle = (outcome: Outcome) => {
        child.off("message", onMessage).off("exit", onExit).off("error", onError);
        resolve(outcome);
      };
      const onMessage = (message: unknown) => {
        const answer = answerSchema.parse(message);
        if (answer.kind === "progress") onProgress(answer.text, answer.done);
        else settle(answer);
      };
      const failed = (message: string) => {
        this.alive = false;
        settle({ kind: "failed", message, user: true, diverged: false });
      };
      const onExit = (code: number | null, signal: NodeJS.Signals | null) => {
        const why = signal === "SIGKILL" ? "; the system may have run out of memory" : "";
        const line = this.printed.trim().split("\n").at(-1) ?? "";
        failed(`its process ended (${signal ?? `exit code ${code}`})${why}${line === "" ? "" : `: ${line}`}`);
      };
      const onError = (error: Error) => failed(`its process could not be started: ${error.message}`);
      child.on("message", onMessage).on("exit", onExit).on("error", onError);
      this.send({ kind: "run", job });
    });
  }
}
