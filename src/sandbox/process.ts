import { type ChildProcess, spawn } from "node:child_process";
import { UserError } from "../errors.ts";
import { createGate } from "./gate.ts";
import type { Outcome, Reply, Request, Start } from "./protocol.ts";
import { nodeProtection } from "./runtime.ts";
import { serve } from "./worker.ts";

/** Seconds that a worker may take to start. */
const START_SECONDS = 60;
/** Seconds beyond a program's limit after which its worker is killed. Most programs are ended within theirs by the worker itself. */
const GRACE_SECONDS = 3;
/** Of which a worker's first program with sympy may take the time to load it. */
const LOAD_SECONDS = 120;
/** Megabytes of a worker's JavaScript heap. */
const HEAP = 256;

/** What the process runs: the worker's own source, so that it needs to read no file but pyodide's. */
const source = (): string => `(${serve.toString()})((url) => import(url), ${createGate.toString()});`;

/** A locked-down process with a Python interpreter in it, which runs one program at a time. */
export class SandboxProcess {
  private readonly child: ChildProcess;
  private readonly started: Promise<void>;
  private wheelsToLoad: boolean;
  private readonly waiting = new Set<(reply: Reply | string) => void>();
  private errors = "";
  /** Why the process is gone. */
  private ended: string | undefined;

  constructor(options: Start) {
    this.wheelsToLoad = options.wheels.length > 0;
    const { flags } = nodeProtection();
    this.child = spawn(
      process.execPath,
      [
        ...flags,
        `--allow-fs-read=${options.pyodide}*`,
        "--disallow-code-generation-from-strings",
        `--max-old-space-size=${HEAP}`,
        "--no-warnings",
        "--input-type=module",
        "--eval",
        source(),
      ],
      // The folder of the package is the only one that it may read.
      {
        cwd: options.pyodide,
        env: { TZ: "UTC" },
        stdio: ["ignore", "ignore", "pipe", "ipc"],
        serialization: "advanced",
      },
    );
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      if (this.errors.length < 2000) this.errors += text;
    });
    this.child.on("message", (reply: Reply) => this.tell(reply));
    this.child.on("error", (error) => this.tell(`did not start (${error.message})`));
    this.child.on("exit", (code, signal) => this.tell(`ended (${signal ?? `exit code ${code}`})`));
    this.started = this.start(options);
    // Whoever runs a program gets the reason.
    this.started.catch(() => undefined);
  }

  /** False where the process is gone and must be replaced. */
  get alive(): boolean {
    return this.ended === undefined;
  }

  /** Runs a program. Throws a UserError where the process cannot start; a program that ends it has failed. */
  async run(request: Request): Promise<Outcome> {
    this.keepAlive(true);
    try {
      await this.started;
      const seconds = request.seconds + GRACE_SECONDS + this.loading(request.program);
      const reply = await this.ask(request, seconds);
      if (reply === undefined) {
        this.kill("was stopped");
        return { failure: `the program takes longer than ${request.seconds} s` };
      }
      if (typeof reply === "string") return { failure: `the program ended its process, which ${reply}` };
      if (reply.kind !== "done") return { failure: "the program made its process answer something else" };
      if (reply.last) this.kill("was replaced");
      return reply.outcome;
    } finally {
      this.keepAlive(false);
    }
  }

  /** Seconds to spare for the first program that may import what the wheels hold. */
  private loading(program: string): number {
    if (!this.wheelsToLoad || !program.includes("sympy")) return 0;
    this.wheelsToLoad = false;
    return LOAD_SECONDS;
  }

  /** Ends the process. */
  async close(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.ref();
    this.kill("was closed");
    await gone;
  }

  private async start(options: Start): Promise<void> {
    const reply = await this.ask(options, START_SECONDS);
    if (typeof reply === "object" && reply.kind === "ready") return;
    const reason =
      reply === undefined
        ? `it took longer than ${START_SECONDS} s`
        : typeof reply === "string"
          ? `its process ${reply} ${this.errors.trim().split("\n").slice(-3).join(" ")}`.trim()
          : reply.kind === "broken"
            ? reply.message
            : "it answered something else";
    this.kill("did not start");
    throw new UserError(`the sandbox for programs did not start: ${reason}; \`rifft doctor\` tries it`);
  }

  /** The answer to a message, why the process ended in its place, or undefined after so many seconds. */
  private ask(message: Start | Request, seconds: number): Promise<Reply | string | undefined> {
    if (this.ended !== undefined) return Promise.resolve(this.ended);
    return new Promise((resolve) => {
      const settle = (reply: Reply | string | undefined) => {
        clearTimeout(timer);
        this.waiting.delete(settle);
        resolve(reply);
      };
      // An answer that came while this process was busy is read before the time counts.
      const timer = setTimeout(() => setImmediate(() => settle(undefined)), seconds * 1000);
      this.waiting.add(settle);
      this.child.send(message, (error) => {
        if (error) settle(this.ended ?? `cannot be reached (${error.message})`);
      });
    });
  }

  private tell(reply: Reply | string): void {
    if (typeof reply === "string") this.ended ??= reply;
    for (const settle of this.waiting) settle(reply);
  }

  private kill(reason: string): void {
    this.ended ??= reason;
    this.child.kill("SIGKILL");
  }

  /** A process that waits for work does not keep the program alive; one at work does. */
  private keepAlive(yes: boolean): void {
    const pipe = this.child.channel;
    if (yes) {
      this.child.ref();
      pipe?.ref();
    } else {
      this.child.unref();
      pipe?.unref();
      // A socket, though its type does not say so.
      const errors = this.child.stderr;
      if (errors !== null && "unref" in errors && typeof errors.unref === "function") errors.unref();
    }
  }
}
