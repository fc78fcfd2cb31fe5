import pc from "picocolors";
import type { Alarm } from "./alarms.ts";
import { accuracyText, type BestReport, bestText, curveLines, type EvaluationPoint } from "./curve-view.ts";
import { clip, duration, number, percent, rate, sparkline } from "./format.ts";

export interface StageInfo {
  name: string;
  /** Position in the recipe, from 1, and the number of stages. */
  position: number;
  of: number;
  /** Where the stage is measured in steps. */
  totalSteps?: number;
}

export interface StepReport {
  /** From 0. */
  index: number;
  /** The part of the stage that is done, 0 to 1. */
  done: number;
  metrics: Record<string, number>;
  alarms: Alarm[];
  seconds: { seconds: number; sample?: number; grade?: number; score?: number; train?: number };
  /** Tokens of this step. */
  generated: number;
  trained: number;
}

export type Activity = "sample" | "grade" | "score" | "train" | "save";

/** What watches a run. */
export interface Progress {
  stage(info: StageInfo): void;
  activity(what: Activity): void;
  step(report: StepReport): void;
  /** What a run that goes on has brought along. */
  curve(points: EvaluationPoint[], best: BestReport | undefined): void;
  /** While an evaluation runs: problems done. */
  evaluating(done: number, of: number): void;
  evaluated(point: EvaluationPoint): void;
  best(report: BestReport): void;
  /** A message that stays. */
  note(text: string): void;
  /** Leaves the terminal as it was found. */
  end(): void;
}

/** The part of a terminal that is needed; `process.stderr` is one. */
export interface Terminal {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

/** A live view on a terminal, plain lines anywhere else. Colours are left out where NO_COLOR is set. */
export function createProgress(stream: Terminal): Progress {
  return stream.isTTY === true && process.env.TERM !== "dumb"
    ? new LiveProgress(stream)
    : new PlainProgress((line) => stream.write(`${line}\n`));
}

/** Watches nothing. */
export const silentProgress: Progress = {
  stage() {},
  activity() {},
  step() {},
  curve() {},
  evaluating() {},
  evaluated() {},
  best() {},
  note() {},
  end() {},
};

/** The same to several. */
export function combineProgress(...all: Progress[]): Progress {
  return {
    stage: (info) => all.forEach((p) => p.stage(info)),
    activity: (what) => all.forEach((p) => p.activity(what)),
    step: (report) => all.forEach((p) => p.step(report)),
    curve: (points, best) => all.forEach((p) => p.curve(points, best)),
    evaluating: (done, of) => all.forEach((p) => p.evaluating(done, of)),
    evaluated: (point) => all.forEach((p) => p.evaluated(point)),
    best: (report) => all.forEach((p) => p.best(report)),
    note: (text) => all.forEach((p) => p.note(text)),
    end: () => all.forEach((p) => p.end()),
  };
}

/** How fast a stage goes, from the steps that this process has seen. */
class Pace {
  private readonly start = performance.now();
  private firstDone: number | undefined;
  private firstAt = 0;
  private lastDone = 0;

  add(done: number): void {
    if (this.firstDone === undefined) [this.firstDone, this.firstAt] = [done, performance.now()];
    this.lastDone = done;
  }

  elapsed(): number {
    return (performance.now() - this.start) / 1000;
  }

  /** Seconds until the stage ends; undefined until two steps were seen. */
  left(): number | undefined {
    const gained = this.lastDone - (this.firstDone ?? 0);
    if (gained <= 0 || this.lastDone >= 1) return undefined;
    return ((performance.now() - this.firstAt) / 1000 / gained) * (1 - this.lastDone);
  }
}

/** One line a step, or one in five seconds where steps are faster. */
export class PlainProgress implements Progress {
  private readonly write: (line: string) => void;
  private readonly interval: number;
  private info: StageInfo | undefined;
  private pace = new Pace();
  private last = -Infinity;
  /** Kinds of the last step's alarms. */
  private raised: string[] = [];

  constructor(write: (line: string) => void, interval = 5000) {
    this.write = write;
    this.interval = interval;
  }

  stage(info: StageInfo): void {
    this.info = info;
    this.pace = new Pace();
    this.last = -Infinity;
    this.raised = [];
    this.write(`stage ${info.name} (${info.position} of ${info.of})`);
  }

  activity(): void {}

  step(report: StepReport): void {
    this.pace.add(report.done);
    const now = performance.now();
    // One that lasts is said when it begins, and then with the lines that are written anyway.
    const news = report.alarms.some(({ kind }) => !this.raised.includes(kind));
    this.raised = report.alarms.map(({ kind }) => kind);
    if (now - this.last < this.interval && report.done < 1 && !news) return;
    this.last = now;
    const left = this.pace.left();
    const parts = [
      `${this.info?.name ?? ""} ${stepText(this.info, report)} (${percent(report.done)})`,
      ...Object.entries(report.metrics).map(([name, value]) => `${name} ${number(value)}`),
      ...speeds(report),
      ...(left === undefined ? [] : [`${duration(left)} left`]),
    ];
    this.write(parts.join("  "));
    for (const alarm of alarmLines(report)) this.write(alarm);
  }

  curve(): void {}

  evaluating(): void {}

  evaluated(point: EvaluationPoint): void {
    this.write(
      `${point.stage} step ${point.step}: ${point.split} accuracy ${accuracyText(point)} of ${point.problems}`,
    );
  }

  best(report: BestReport): void {
    this.write(bestText(report));
  }

  note(text: string): void {
    this.write(text);
  }

  end(): void {}
}

const activities: Record<Activity, string> = {
  sample: "sampling",
  grade: "grading",
  score: "scoring",
  train: "training",
  save: "saving",
};

/** Draws the state of the run in place, at most ten times a second. */
class LiveProgress implements Progress {
  private readonly stream: Terminal;
  private readonly colors = pc.createColors(!process.env.NO_COLOR);
  private info: StageInfo | undefined;
  private report: StepReport | undefined;
  private doing: Activity | undefined;
  private history: number[] = [];
  private pace = new Pace();
  private points: EvaluationPoint[] = [];
  private judged: BestReport | undefined;
  private evaluation: { done: number; of: number } | undefined;
  private drawn = 0;
  private lastDraw = -Infinity;
  private timer: NodeJS.Timeout | undefined;

  constructor(stream: Terminal) {
    this.stream = stream;
  }

  stage(info: StageInfo): void {
    // The finished stage's last picture stays above.
    if (this.report !== undefined) this.draw();
    this.drawn = 0;
    this.info = info;
    this.report = undefined;
    this.history = [];
    this.pace = new Pace();
    // The clock and the time left go on while a long step runs.
    this.timer ??= setInterval(() => this.draw(), 1000).unref();
    this.draw();
  }

  activity(what: Activity): void {
    this.doing = what;
    this.drawSoon();
  }

  curve(points: EvaluationPoint[], best: BestReport | undefined): void {
    this.points = [...points];
    this.judged = best;
  }

  evaluating(done: number, of: number): void {
    this.evaluation = { done, of };
    this.drawSoon();
  }

  evaluated(point: EvaluationPoint): void {
    this.evaluation = undefined;
    this.points.push(point);
    this.draw();
  }

  best(report: BestReport): void {
    this.judged = report;
    this.draw();
  }

  step(report: StepReport): void {
    this.report = report;
    this.pace.add(report.done);
    const main = mainMetric(report.metrics);
    if (main !== undefined) this.history.push(report.metrics[main]);
    this.drawSoon();
  }

  note(text: string): void {
    this.erase();
    this.stream.write(`${text}\n`);
    this.draw();
  }

  end(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.doing = undefined;
    this.evaluation = undefined;
    this.draw();
    this.drawn = 0;
    this.info = undefined;
  }

  private drawSoon(): void {
    if (performance.now() - this.lastDraw >= 100) this.draw();
  }

  private erase(): void {
    if (this.drawn > 0) this.stream.write(`\x1b[${this.drawn}A\r\x1b[0J`);
    this.drawn = 0;
  }

  private draw(): void {
    if (this.info === undefined) return;
    this.lastDraw = performance.now();
    // The last column stays free: a full line would wrap on some terminals.
    const width = Math.max(20, (this.stream.columns ?? 80) - 1);
    const lines = this.lines(this.info, width);
    const up = this.drawn > 0 ? `\x1b[${this.drawn}A\r\x1b[0J` : "";
    this.stream.write(`${up}${lines.join("\n")}\n`);
    this.drawn = lines.length;
  }

  private lines(info: StageInfo, width: number): string[] {
    const { colors, report } = this;
    const done = report?.done ?? 0;
    const title = `${info.name} (${info.position} of ${info.of})`;
    const status = [
      report === undefined ? "" : stepText(info, report),
      this.evaluation !== undefined
        ? `evaluating ${this.evaluation.done}/${this.evaluation.of}`
        : this.doing === undefined
          ? ""
          : activities[this.doing],
    ];
    const head = [title, ...status.filter((s) => s !== "")].join("  ");
    const left = this.pace.left();
    const clock = `${percent(done)}  ${duration(this.pace.elapsed())}${left === undefined ? "" : `, ${duration(left)} left`}`;
    const barWidth = Math.max(4, Math.min(40, width - clock.length - 2));
    const filled = Math.round(barWidth * done);
    const bar = `${colors.green("█".repeat(filled))}${colors.dim("░".repeat(barWidth - filled))}`;
    const lines = [colors.bold(clip(head, width)), `${bar}  ${clip(clock, width - barWidth - 2)}`];
    const curve = curveLines(this.points, this.judged, width, colors);
    if (report === undefined) return [...lines, ...curve];

    const main = mainMetric(report.metrics);
    if (main !== undefined) {
      const text = `${main} ${number(report.metrics[main])}`;
      const room = width - text.length - 2;
      const line =
        room >= 4
          ? `${clip(text, width)}  ${colors.cyan(sparkline(this.history, Math.min(room, 60)))}`
          : clip(text, width);
      lines.push(line);
    }
    const rest = Object.keys(report.metrics).filter((name) => name !== main);
    const names = [
      ...headline.filter((name) => rest.includes(name)),
      ...rest.filter((name) => !headline.includes(name)),
    ];
    const cells = names.map((name) => `${name} ${number(report.metrics[name])}`);
    lines.push(...flow([...cells, ...speeds(report)], width), ...curve);
    lines.push(...alarmLines(report).map((alarm) => colors.red(clip(alarm, width))));
    return lines;
  }
}

function stepText(info: StageInfo | undefined, report: StepReport): string {
  return `step ${report.index + 1}${info?.totalSteps === undefined ? "" : `/${info.totalSteps}`}`;
}

/** What a person looks at first; everything else that a method logs follows. */
const headline = ["solveRate", "kl", "entropy", "responseLength", "mismatch"];

/** The metric whose curve is drawn. */
function mainMetric(metrics: Record<string, number>): string | undefined {
  return ["reward", "loss"].find((name) => name in metrics);
}

function alarmLines({ alarms }: StepReport): string[] {
  return alarms.map(({ metric, value, text }) => `! ${metric} ${number(value)}: ${text}`);
}

function speeds(report: StepReport): string[] {
  const { sample, train } = report.seconds;
  return [
    ...(sample !== undefined && report.generated > 0 ? [`sampling ${rate(report.generated / sample)}`] : []),
    ...(train !== undefined && report.trained > 0 ? [`training ${rate(report.trained / train)}`] : []),
  ];
}

/** Lays cells out in lines of at most `width`. */
function flow(cells: string[], width: number): string[] {
  const lines: string[] = [];
  for (const cell of cells) {
    const last = lines[lines.length - 1];
    if (last !== undefined && last.length + 3 + cell.length <= width) lines[lines.length - 1] = `${last}   ${cell}`;
    else lines.push(clip(cell, width));
  }
  return lines;
}
