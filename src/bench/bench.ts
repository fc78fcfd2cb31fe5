import { availableParallelism } from "node:os";
import { nearest, UserError } from "../errors.ts";
import type { ModelConfig } from "../model/types.ts";
import { Runtime } from "../runtime/index.ts";
import { currentEnvironment, type Environment } from "../run/environment.ts";
import { WorkloadProcess } from "./child.ts";
import { type Figure, figures, type Line, type Measured } from "./figures.ts";
import { BandwidthProbe, GemmProbe, trustedBandwidth } from "./probes.ts";
import { median } from "./quiet.ts";

export interface FigureReport {
  name: string;
  about: string;
  /** What the memory budget chose. */
  plan: string;
  lines: Line[];
  /** How many repeats were judged, how many there were, and whether the judged ones were quiet. */
  repeats: { judged: number; all: number; quiet: boolean };
  probes: ProbeReport[];
}

export interface ProbeReport {
  what: string;
  /** GFLOP/s or GB/s. */
  rate: number;
  unit: "GFLOP/s" | "GB/s";
  by: string;
}

export interface BenchReport {
  environment: Omit<Environment, "memoryPlan">;
  figures: FigureReport[];
  seconds: number;
}

export interface BenchOptions {
  onProgress?: (text: string) => void;
  /** Called when a figure is done. */
  onFigure?: (figure: FigureReport) => void;
}

/** The core figures stay within this many seconds. */
const CORE_SECONDS = 570;
/** A workload is repeated at most so often in search of quiet ones. */
const MOST_REPEATS = 9;
/** Rows at which a machine shows what it can multiply at best. */
const LARGE_ROWS = 256;

/** Measures the named figures, or the core ones; each against floors probed in between. */
export async function bench(names: string[], options: BenchOptions = {}): Promise<BenchReport> {
  const chosen = chooseFigures(names);
  const start = performance.now();
  const elapsed = () => (performance.now() - start) / 1000;
  const machine = new Machine();
  const reports: FigureReport[] = [];
  try {
    for (const [i, figure] of chosen.entries()) {
      const toCome = chosen.slice(i).reduce((sum, { seconds }) => sum + seconds, 0);
      const share = names.length > 0 ? Infinity : ((CORE_SECONDS - elapsed()) * figure.seconds) / toCome;
      const report = await measure(figure, machine, share, options.onProgress ?? (() => {}));
      reports.push(report);
      options.onFigure?.(report);
    }
  } finally {
    machine.release();
  }
  const { memoryPlan: _, ...environment } = currentEnvironment("");
  return { environment, figures: reports, seconds: elapsed() };
}

/** Throws a UserError for a name that is none, with the nearest. */
export function chooseFigures(names: string[]): Figure[] {
  if (names.length === 0) return figures.filter((figure) => figure.core);
  const known = figures.map((figure) => figure.name);
  return [...new Set(names)].map((name) => {
    const figure = figures.find((one) => one.name === name);
    if (figure) return figure;
    const near = nearest(name, known);
    throw new UserError(
      `there is no figure "${name}" (${near === undefined ? `figures: ${known.join(", ")}` : `did you mean "${near}"?`})`,
    );
  });
}

/** The probes, kept while they are needed. */
class Machine {
  private readonly runtime = Runtime.open();
  private readonly gemms = new Map<string, GemmProbe>();
  private memory: BandwidthProbe | undefined;

  gemm(config: ModelConfig, rows: number): GemmProbe {
    const key = `${config.hidden} ${config.vocab} ${rows}`;
    let probe = this.gemms.get(key);
    if (!probe) this.gemms.set(key, (probe = new GemmProbe(this.runtime, config, rows)));
    return probe;
  }

  get bandwidth(): BandwidthProbe {
    return (this.memory ??= new BandwidthProbe(this.runtime));
  }

  /** Frees the products' probes. */
  forget(): void {
    for (const probe of this.gemms.values()) probe.release();
    this.gemms.clear();
  }

  release(): void {
    this.forget();
    this.memory?.release();
  }
}

async function measure(
  figure: Figure,
  machine: Machine,
  secondsAllowed: number,
  progress: (text: string) => void,
): Promise<FigureReport> {
  const began = performance.now();
  const { name, about, config, gemmRows } = figure;
  const probed = figure.bandwidth ? [...gemmRows, LARGE_ROWS] : gemmRows;
  const probe = (): void => {
    progress(`${name}: what this machine can do`);
    for (const rows of probed) machine.gemm(config, rows).measure();
    if (figure.bandwidth) machine.bandwidth.measure();
  };
  progress(`${name}: warming up`);
  const { process: worker, ready } = await WorkloadProcess.start(name);
  const repeats: { values: Record<string, number>; quiet: boolean; peak: number }[] = [];
  const quiet = () => repeats.filter((repeat) => repeat.quiet);
  try {
    do {
      // Every second time: three times in five repeats.
      if (repeats.length % 2 === 0) probe();
      progress(`${name}: ${quiet().length} of ${figure.repeats} quiet repeats, ${repeats.length} in all`);
      repeats.push(await worker.repeat());
      const next = ((performance.now() - began) / 1000) * (1 + 1 / repeats.length);
      if (next > secondsAllowed) break;
    } while (quiet().length < figure.repeats && repeats.length < Math.max(MOST_REPEATS, figure.repeats));
  } finally {
    await worker.end();
  }
  for (let times = Math.ceil(repeats.length / 2); times < 3; times++) probe();
  // Where it was never quiet, everything is judged, and said to be so.
  const judged = quiet().length > 0 ? quiet() : repeats;
  const bandwidth = figure.bandwidth ? machine.bandwidth.rate : undefined;
  const large = figure.bandwidth ? machine.gemm(config, LARGE_ROWS).rate.best : 0;
  const trusted = trustedBandwidth(bandwidth?.best ?? NaN, large, availableParallelism());
  const measured: Measured = {
    median: (value) => median(judged.map(({ values }) => values[value])),
    facts: ready.facts,
    peak: Math.max(...repeats.map(({ peak }) => peak)) / 1e9,
    gemm: (rows) => machine.gemm(config, rows).rate.best,
    bandwidth: trusted.bytes,
  };
  const probes = gemmRows.map((rows): ProbeReport => {
    const { best, by } = machine.gemm(config, rows).rate;
    return { what: `products of ${rows} rows`, rate: best / 1e9, unit: "GFLOP/s", by };
  });
  if (bandwidth) {
    const by = trusted.assumed ? `assumed; the probe reached ${(bandwidth.best / 1e9).toFixed(1)}` : bandwidth.by;
    probes.push({ what: "bandwidth", rate: trusted.bytes / 1e9, unit: "GB/s", by });
  }
  const report = {
    name,
    about,
    plan: ready.plan,
    lines: figure.lines(measured),
    probes,
    repeats: { judged: judged.length, all: repeats.length, quiet: judged.every((repeat) => repeat.quiet) },
  };
  machine.forget();
  return report;
}
