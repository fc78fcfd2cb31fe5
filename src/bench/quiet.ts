import { cpus } from "node:os";

/** Other processes may take this share of the cores in a repeat that counts as quiet. */
const TOLERANCE = 0.06;

interface Moment {
  wall: number;
  /** Milliseconds that all cores were busy; NaN where the system doesn't tell. */
  busy: number;
  /** Milliseconds of this process. */
  own: number;
}

function moment(): Moment {
  const all = cpus();
  const busy = all.reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
  const { user, system } = process.cpuUsage();
  return { wall: performance.now(), busy: busy > 0 ? busy : NaN, own: (user + system) / 1000 };
}

/** Runs the work; `quiet` says whether nobody else used the cores meanwhile (true where the system doesn't tell). */
export async function watched<T>(work: () => Promise<T>): Promise<{ result: T; seconds: number; quiet: boolean }> {
  const before = moment();
  const result = await work();
  const after = moment();
  return { result, seconds: (after.wall - before.wall) / 1000, quiet: isQuiet(before, after, cpus().length) };
}

export function isQuiet(before: Moment, after: Moment, cores: number): boolean {
  const others = after.busy - before.busy - (after.own - before.own);
  return !(others > TOLERANCE * cores * (after.wall - before.wall));
}

/** The median; the mean of the two in the middle where their number is even. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
