import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { UserError } from "../errors.ts";
import { type Answer, answerSchema, OUTPUT_LIMIT } from "./protocol.ts";
import { DEFAULT_DEADLINE, failedGrade, type Grader, type Item, pastDeadline } from "./reward.ts";
import type { Grade } from "./types.ts";

/** The thread's entry is TypeScript in a checkout and JavaScript in the package; jiti runs either on every supported Node. */
const BOOTSTRAP = `
const { workerData } = require("node:worker_threads");
const { createJiti } = require(workerData.jiti);
createJiti(workerData.entry).import(workerData.entry);
`;

/** Megabytes of heap that a reward thread may use. */
const MEMORY_LIMIT = 512;

interface Job {
  item: Item;
  resolve(grade: Grade): void;
  reject(error: Error): void;
}

/**
 * Rewards of a task file, each in a thread that works on one item at a time. A thread whose item passes the deadline (in a
 * synchronous endless loop too), prints too much, runs out of memory or ends itself is replaced; only that item is lost.
 */
export function poolGrader(file: string, deadline = DEFAULT_DEADLINE): Grader {
  const queue: Job[] = [];
  const threads = Array.from({ length: Math.min(4, availableParallelism()) }, () => new RewardThread(file, deadline));
  const idle = [...threads];
  const drain = async (thread: RewardThread) => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      await thread.grade(job.item).then(job.resolve, job.reject);
    }
    idle.push(thread);
  };
  return {
    grade(items) {
      const grades = items.map(
        (item) => new Promise<Grade>((resolve, reject) => queue.push({ item, resolve, reject })),
      );
      for (const thread of idle.splice(0, queue.length)) void drain(thread);
      return Promise.all(grades);
    },
    async close() {
      queue.length = 0;
      await Promise.all(threads.map((thread) => thread.close()));
    },
  };
}

class RewardThread {
  private readonly file: string;
  private readonly deadline: number;
  private worker?: Promise<Worker>;

  constructor(file: string, deadline: number) {
    this.file = file;
    this.deadline = deadline;
  }

  async grade(item: Item): Promise<Grade> {
    const worker = await (this.worker ??= this.start());
    // A thread that waits for work does not keep the program alive; one at work does.
    worker.ref();
    try {
      const grade = await this.ask(worker, item);
      if (typeof grade !== "string") return grade;
      await worker.terminate();
      this.worker = undefined;
      return failedGrade(item, grade);
    } finally {
      worker.unref();
    }
  }

  private async start(): Promise<Worker> {
    const worker = await startWorker(this.file);
    // A thread may also end between two items, by something that a reward left behind.
    worker.once("exit", () => (this.worker = undefined));
    return worker;
  }

  async close(): Promise<void> {
    const worker = await this.worker?.catch(() => undefined);
    this.worker = undefined;
    await worker?.terminate();
  }

  /** The item's grade, or why there is none and the thread is of no more use. */
  private ask(worker: Worker, item: Item): Promise<Grade | string> {
    return new Promise((resolve) => {
      const settle = (result: Grade | string) => {
        clearTimeout(timer);
        worker.off("message", onMessage).off("error", onError).off("exit", onExit);
        resolve(result);
      };
      const onMessage = (message: unknown) => {
        const answer: Answer = answerSchema.parse(message);
        if (answer.kind === "graded") settle(answer.grade);
        if (answer.kind === "flood") settle(`the reward printed more than ${OUTPUT_LIMIT} characters`);
        if (answer.kind === "output") process.stderr.write(answer.text);
      };
      const onError = (error: Error) => settle(`the reward ended its thread (${error.message})`);
      const onExit = () => settle("the reward ended its thread");
      // An answer that came while this thread was busy is read before the deadline counts.
      const timer = setTimeout(() => setImmediate(() => settle(pastDeadline(this.deadline))), this.deadline * 1000);
      worker.on("message", onMessage).on("error", onError).on("exit", onExit);
      try {
        worker.postMessage(item);
      } catch (error) {
        settle(
          failedGrade(item, `the problem's data must be plain data (${error instanceof Error ? error.message : ""})`),
        );
      }
    });
  }
}

function startWorker(file: string): Promise<Worker> {
  const suffix = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const entry = fileURLToPath(new URL(`./worker.${suffix}`, import.meta.url));
  const jiti = createRequire(import.meta.url).resolve("jiti");
  const worker = new Worker(BOOTSTRAP, {
    eval: true,
    execArgv: [],
    workerData: { file, entry, jiti },
    resourceLimits: { maxOldGenerationSizeMb: MEMORY_LIMIT },
  });
  return new Promise((resolve, reject) => {
    const fail = (reason: string) => reject(new UserError(`${file}: the reward's thread did not start (${reason})`));
    worker.on("error", (error) => fail(error.message));
    worker.once("exit", () => fail("it ended at once"));
    worker.on("message", (message) => {
      const answer = answerSchema.parse(message);
      if (answer.kind === "ready") {
        worker.unref();
        resolve(worker);
      }
      if (answer.kind === "broken") {
        reject(new UserError(answer.message));
        void worker.terminate();
      }
    });
  });
}
