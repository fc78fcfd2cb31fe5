import pc from "picocolors";
import { duration, percent } from "../run/format.ts";
import type { Terminal } from "../run/progress.ts";
import type { Outcome } from "./pool.ts";

/** What watches an experiment. */
export interface ExperimentProgress {
  /** Cells of a phase: all, and those that are complete already. */
  phase(name: string, total: number, complete: number, slots: number): void;
  start(id: string): void;
  update(id: string, text: string, done: number): void;
  finish(id: string, outcome: Outcome): void;
  /** A message that stays. */
  note(text: string): void;
  /** Leaves the terminal as it was found. */
  close(): void;
}

/** A live view on a terminal, plain lines anywhere else. */
export function experimentProgress(stream: Terminal): ExperimentProgress {
  return stream.isTTY === true && process.env.TERM !== "dumb" ? new Live(stream) : new Plain(stream);
}

interface Running {
  began: number;
  text: string;
  done: number;
  told: number;
}

/** How far a phase is, and how long the rest will take at the pace of this process. */
class Pace {
  readonly running = new Map<string, Running>();
  private total = 0;
  private complete = 0;
  private slots = 1;
  /** Seconds that finished cells took. */
  private readonly took: number[] = [];
  name = "";

  phase(name: string, total: number, complete: number, slots: number): void {
    Object.assign(this, { name, total, complete, slots });
    this.took.length = 0;
  }

  start(id: string): void {
    this.running.set(id, { began: performance.now(), text: "begins", done: 0, told: performance.now() });
  }

  finish(id: string, counted: boolean): number {
    const began = this.running.get(id)?.began ?? performance.now();
    this.running.delete(id);
    this.complete++;
    const seconds = (performance.now() - began) / 1000;
    if (counted) this.took.push(seconds);
    return seconds;
  }

  /** Seconds until the phase ends; undefined until something is known of the pace. */
  left(): number | undefined {
    const now = performance.now();
    const running = [...this.running.values()];
    const shown = running.filter(({ done }) => done > 0.02).map(({ began, done }) => (now - began) / 1000 / done);
    const known = this.took.length > 0 ? this.took : shown;
    if (known.length === 0) return undefined;
    const each = known.reduce((sum, seconds) => sum + seconds, 0) / known.length;
    const rest = running.reduce((sum, { done }) => sum + each * (1 - done), 0);
    const waiting = this.total - this.complete - running.length;
    return (rest + waiting * each) / Math.min(this.slots, Math.max(1, running.length + waiting));
  }

  summary(): string {
    const left = this.left();
    const time = left === undefined || this.complete === this.total ? "" : `, ${duration(left)} left`;
    return `${this.name}: ${this.complete} of ${this.total} cells${time}`;
  }
}

const outcomeText = (outcome: Outcome, seconds: number): string => {
  if (outcome.kind === "complete") return `complete (${duration(seconds)})`;
  if (outcome.kind === "stopped") return "stopped, with a checkpoint";
  return `${outcome.diverged ? "diverged" : "FAILED"}: ${outcome.user ? outcome.message : outcome.message.split("\n")[0]}`;
};

/** A line where a cell begins and ends, and one in half a minute between. */
class Plain implements ExperimentProgress {
  private readonly pace = new Pace();
  private readonly stream: Terminal;

  constructor(stream: Terminal) {
    this.stream = stream;
  }

  phase(name: string, total: number, complete: number, slots: number): void {
    this.pace.phase(name, total, complete, slots);
    this.note(this.pace.summary());
  }

  start(id: string): void {
    this.pace.start(id);
    this.note(`${id} begins`);
  }

  update(id: string, text: string, done: number): void {
    const cell = this.pace.running.get(id);
    if (cell === undefined) return;
    Object.assign(cell, { text, done });
    if (performance.now() - cell.told < 30_000) return;
    cell.told = performance.now();
    this.note(`${id} ${percent(done)}  ${text}  (${this.pace.summary()})`);
  }

  finish(id: string, outcome: Outcome): void {
    const seconds = this.pace.finish(id, outcome.kind === "complete");
    this.note(`${id} ${outcomeText(outcome, seconds)}  (${this.pace.summary()})`);
  }

  note(text: string): void {
    this.stream.write(`${text}\n`);
  }

  close(): void {}
}

/** The phase's line and one for each running cell, drawn in place; what ended scrolls away above. */
class Live implements ExperimentProgress {
  private readonly pace = new Pace();
  private readonly stream: Terminal;
  private readonly colors = pc.createColors(!process.env.NO_COLOR);
  private drawn = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(stream: Terminal) {
    this.stream = stream;
  }

  phase(name: string, total: number, complete: number, slots: number): void {
    this.pace.phase(name, total, complete, slots);
    this.timer ??= setInterval(() => this.draw(), 500).unref();
    this.draw();
  }

  start(id: string): void {
    this.pace.start(id);
    this.draw();
  }

  update(id: string, text: string, done: number): void {
    const cell = this.pace.running.get(id);
    if (cell !== undefined) Object.assign(cell, { text, done });
  }

  finish(id: string, outcome: Outcome): void {
    const text = outcomeText(outcome, this.pace.finish(id, outcome.kind === "complete"));
    this.note(`${id} ${outcome.kind === "failed" ? this.colors.red(text) : text}`);
  }

  note(text: string): void {
    this.erase();
    this.stream.write(`${text}\n`);
    this.draw();
  }

  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.erase();
  }

  private erase(): void {
    if (this.drawn > 0) this.stream.write(`\x1b[${this.drawn}A\r\x1b[0J`);
    this.drawn = 0;
  }

  private draw(): void {
    if (this.timer === undefined) return;
    // The last column stays free: a full line would wrap on some terminals.
    const width = Math.max(20, (this.stream.columns ?? 80) - 1);
    const clip = (text: string) => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);
    const lines = [this.colors.bold(clip(this.pace.summary()))];
    for (const [id, { text, done }] of this.pace.running) {
      const filled = Math.round(10 * done);
      lines.push(
        clip(`  ${"█".repeat(filled)}${"░".repeat(10 - filled)} ${percent(done).padStart(5)}  ${id}  ${text}`),
      );
    }
    this.erase();
    this.stream.write(`${lines.join("\n")}\n`);
    this.drawn = lines.length;
  }
}
