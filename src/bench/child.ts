import type { ChildProcess } from "node:child_process";
import { UserError } from "../errors.ts";
import { startProcess } from "../run/process.ts";
import { type Answer, answerSchema } from "./protocol.ts";

/** Starts a file of this folder as a process that can be talked to. What it prints on standard output is dropped. */
export function startBenchProcess(name: string, args: string[]): ChildProcess {
  return startProcess(import.meta.url, `./${name}`, { args, stdio: ["ignore", "ignore", "inherit", "ipc"] });
}

/** A workload in a process of its own. */
export class WorkloadProcess {
  private readonly child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.child = child;
  }

  /** Starts the process and waits until its model is made and warm. */
  static async start(name: string): Promise<{ process: WorkloadProcess; ready: Extract<Answer, { kind: "ready" }> }> {
    const started = new WorkloadProcess(startBenchProcess("worker", [name]));
    const ready = await started.answer();
    if (ready.kind !== "ready") throw new Error(`the workload ${name} answered ${ready.kind}`);
    return { process: started, ready };
  }

  async repeat(): Promise<Extract<Answer, { kind: "repeat" }>> {
    const answer = this.answer();
    this.child.send("repeat");
    const result = await answer;
    if (result.kind !== "repeat") throw new Error(`a repeat was answered by ${result.kind}`);
    return result;
  }

  /** Ends the process; its memory is free when the promise settles. */
  end(): Promise<void> {
    return new Promise((resolve) => {
      if (this.child.exitCode !== null || this.child.signalCode !== null) return resolve();
      this.child.once("exit", () => resolve());
      this.child.kill("SIGKILL");
    });
  }

  private answer(): Promise<Answer> {
    const { child } = this;
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        child.off("message", onMessage).off("exit", onExit).off("error", onError);
        act();
      };
      const onMessage = (message: unknown): void => {
        const answer = answerSchema.parse(message);
        if (answer.kind !== "failed") return settle(() => resolve(answer));
        settle(() => reject(answer.user ? new UserError(answer.message) : new Error(answer.message)));
      };
      const onExit = (code: number | null, signal: NodeJS.Signals | null): void => {
        const why = signal === "SIGKILL" ? "; the system may have run out of memory" : "";
        settle(() => reject(new UserError(`the bench's process ended (${signal ?? `exit code ${code}`})${why}`)));
      };
      const onError = (error: Error): void => settle(() => reject(error));
      child.on("message", onMessage).on("exit", onExit).on("error", onError);
    });
  }
}
