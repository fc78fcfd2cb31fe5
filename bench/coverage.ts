import { RandomStream } from "../src/engine/random.ts";
import { type Column, estimates95, type Interval, wilson95 } from "../src/eval/intervals.ts";
import { pairedDifference95, tInterval95 } from "../src/eval/paired.ts";
import { twoWayBootstrap95 } from "../src/eval/seeds.ts";
import { majorityAtK, passAtK } from "../src/eval/subsets.ts";

/**
 * How often 95 % intervals hold the truth, in simulated evaluations whose truth is known. `npx jiti bench/coverage.ts wilson`
 * (or `accuracy`, `pass@4`, `maj@4`, `tokens`, `paired`, `seeds`) prints the tables of docs/evaluation.md; a second argument is the number of simulations, a third of `seeds` one number of seeds.
 */

/** Samples a problem and the k of pass@k and maj@k. */
const SAMPLES = 8;
const K = 4;
/** How wrong answers are spread over three wrong values. */
const WRONG = [0.5, 0.3, 0.2];
export type Statistic = "accuracy" | "pass@4" | "maj@4";
/** How solve rates are spread over problems: most near 0 or 1, or around their mean. */
export type Spread = "split" | "even";

const holds = ({ low, high }: Interval, truth: number): boolean => low - 1e-12 <= truth && truth <= high + 1e-12;

/** Wilson's coverage is a finite sum over the binomial distribution: no simulation. */
export function wilsonCoverage(problems: number, p: number): number {
  let covered = 0;
  let log = problems * Math.log(1 - p);
  for (let right = 0; right <= problems; right++) {
    if (holds(wilson95(right, problems), p)) covered += Math.exp(log);
    log += Math.log(((problems - right) / (right + 1)) * (p / (1 - p)));
  }
  return covered;
}

/** The statistic's expectation for a problem that is solved with probability `rate`. */
function expectedStatistic(statistic: Statistic, rate: number): number {
  if (statistic === "accuracy") return rate;
  if (statistic === "pass@4") return 1 - (1 - rate) ** K;
  let sum = 0;
  const shares = [rate, ...WRONG.map((share) => share * (1 - rate))];
  const count = (left: number, counts: number[]) => {
    if (counts.length === 3) {
      const all = [...counts, left];
      const top = Math.max(...all);
      if (all[0] < top) return;
      const factorial = [1, 1, 2, 6, 24];
      const ways = all.reduce((product, c) => product / factorial[c], factorial[K]);
      sum += all.reduce((product, c, i) => product * shares[i] ** c, ways) / all.filter((c) => c === top).length;
      return;
    }
    for (let c = 0; c <= left; c++) count(left - c, [...counts, c]);
  };
  count(K, []);
  return sum;
}

const RATES = Array.from({ length: 41 }, (_, i) => Math.min(0.9995, Math.max(0.0005, i / 40)));

/** Cumulative weights of RATES, a tilted symmetric beta distribution, under which the statistic's expectation is `p`. */
function rateDistribution(statistic: Statistic, p: number, spread: Spread): number[] {
  const power = spread === "split" ? -0.35 : 1.5;
  const values = RATES.map((rate) => expectedStatistic(statistic, rate));
  const weights = (tilt: number) => {
    const logs = RATES.map((rate) => power * Math.log(rate * (1 - rate)) + tilt * rate);
    const top = Math.max(...logs);
    const raw = logs.map((log) => Math.exp(log - top));
    const total = raw.reduce((sum, w) => sum + w, 0);
    return raw.map((w) => w / total);
  };
  let low = -5000;
  let high = 5000;
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (weights(middle).reduce((sum, w, j) => sum + w * values[j], 0) < p) low = middle;
    else high = middle;
  }
  let sum = 0;
  return weights(low).map((w) => (sum += w));
}

const remembered = new Map<string, number>();
function drawStatistic(statistic: Statistic, rate: number, random: RandomStream): number {
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < SAMPLES; i++) {
    const u = random.uniform();
    const wrong = (u - rate) / (1 - rate);
    counts[u < rate ? 0 : wrong < WRONG[0] ? 1 : wrong < WRONG[0] + WRONG[1] ? 2 : 3]++;
  }
  if (statistic === "accuracy") return counts[0] / SAMPLES;
  if (statistic === "pass@4") return passAtK(SAMPLES, counts[0], K);
  const key = counts.join();
  let value = remembered.get(key);
  if (value === undefined) {
    const answers = counts.flatMap((count, answer) => Array<number>(count).fill(answer));
    const clusters = answers.map((answer) => answers.indexOf(answer));
    value = majorityAtK(
      clusters,
      answers.map((answer) => answer === 0),
      K,
    );
    remembered.set(key, value);
  }
  return value;
}

/** Resamples depend on the number of problems alone, so many simulations share a call. */
function coverageOf(draw: () => Column, truth: number, simulations: number): number {
  const batch = 50;
  let held = 0;
  for (let done = 0; done < simulations; done += batch) {
    const columns = Array.from({ length: Math.min(batch, simulations - done) }, draw);
    held += estimates95(columns, done).filter((estimate) => holds(estimate, truth)).length;
  }
  return held / simulations;
}

/** Coverage of an evaluation's interval for a statistic whose true value is `p`. */
export function shareCoverage(
  statistic: Statistic,
  problems: number,
  p: number,
  spread: Spread,
  simulations: number,
): number {
  const cumulative = rateDistribution(statistic, p, spread);
  const random = new RandomStream(`coverage/${statistic}/${problems}/${p}/${spread}`);
  const rate = () => {
    const u = random.uniform();
    return RATES[
      Math.max(
        0,
        cumulative.findIndex((c) => u < c),
      )
    ];
  };
  const draw = (): Column => ({
    values: Array.from({ length: problems }, () => drawStatistic(statistic, rate(), random)),
    share: true,
  });
  return coverageOf(draw, p, simulations);
}

const LONGEST = 1024;

/** Coverage for generated tokens: log-normal lengths between and within problems, four samples a problem, cut at 1,024. */
export function tokenCoverage(problems: number, sigma: number, simulations: number): number {
  const random = new RandomStream(`coverage/tokens/${problems}/${sigma}`);
  const tokens = () => {
    const level = 5 + 0.8 * sigma * random.normal();
    let sum = 0;
    for (let i = 0; i < 4; i++) sum += Math.min(LONGEST, Math.exp(level + 0.6 * sigma * random.normal()));
    return sum / 4;
  };
  // The lengths are log-normal with the two variances together, cut: a one-dimensional integral.
  let truth = 0;
  let mass = 0;
  for (let z = -9; z <= 9; z += 0.001) {
    const density = Math.exp(-0.5 * z * z);
    truth += density * Math.min(LONGEST, Math.exp(5 + sigma * z));
    mass += density;
  }
  const draw = (): Column => ({ values: Array.from({ length: problems }, tokens), share: false });
  return coverageOf(draw, truth / mass, simulations);
}

/** Coverage of the paired difference: of `differ` problems the share that only one side solves, B ahead by `ahead`. */
export function pairedCoverage(problems: number, differ: number, ahead: number, simulations: number): number {
  const random = new RandomStream(`coverage/paired/${problems}/${differ}/${ahead}`);
  let held = 0;
  for (let s = 0; s < simulations; s++) {
    const differences = Array.from({ length: problems }, () => {
      const u = random.uniform();
      return u < (differ + ahead) / 2 ? 1 : u < differ ? -1 : 0;
    });
    held += Number(holds(pairedDifference95(differences).interval, ahead));
  }
  return held / simulations;
}

export interface SeedDesign {
  seeds: number;
  problems: number;
  /** Standard deviation over seeds of the difference of two methods. */
  seedSpread: number;
  /** Standard deviation over problems of the same. */
  problemSpread: number;
}

export interface SeedCoverage {
  /** Of the difference over all seeds on the problems at hand. */
  tHere: number;
  twoWayHere: number;
  /** Of the difference over all seeds and all problems. */
  tEverywhere: number;
  twoWayEverywhere: number;
}

/**
 * Coverage over seeds: two methods answer each problem once a seed; A solves problem i with a rate uniform in [0.1, 0.9], B with that
 * rate plus 0.03 plus normal effects of the seed and of the problem, cut to [0, 1].
 */
export function seedCoverage(design: SeedDesign, simulations: number): SeedCoverage {
  const { seeds, problems, seedSpread, problemSpread } = design;
  const random = new RandomStream(`coverage/seeds/${seeds}/${problems}/${seedSpread}/${problemSpread}`);
  const nodes = Array.from({ length: 33 }, (_, i) => -4 + i / 4);
  const density = nodes.map((z) => Math.exp(-0.5 * z * z));
  const mass = density.reduce((sum, d) => sum + d, 0);
  const cut = (rate: number) => Math.min(1, Math.max(0, rate));
  /** B's rate for a problem, over seeds. */
  const over = (rate: number, effect: number) =>
    nodes.reduce((sum, z, i) => sum + density[i] * cut(rate + 0.03 + effect + seedSpread * z), 0) / mass;
  let everywhere = 0;
  const cells = 64;
  for (let i = 0; i < cells; i++) {
    const rate = 0.1 + (0.8 * (i + 0.5)) / cells;
    nodes.forEach((z, j) => {
      everywhere += ((density[j] / mass) * (over(rate, problemSpread * z) - rate)) / cells;
    });
  }
  const held: SeedCoverage = { tHere: 0, twoWayHere: 0, tEverywhere: 0, twoWayEverywhere: 0 };
  for (let s = 0; s < simulations; s++) {
    const rates = Array.from({ length: problems }, () => 0.1 + 0.8 * random.uniform());
    const effects = rates.map(() => problemSpread * random.normal());
    const here = rates.reduce((sum, rate, i) => sum + over(rate, effects[i]) - rate, 0) / problems;
    const differences = Array.from({ length: seeds }, () => {
      const shift = 0.03 + seedSpread * random.normal();
      return rates.map(
        (rate, i) => Number(random.uniform() < cut(rate + shift + effects[i])) - Number(random.uniform() < rate),
      );
    });
    const t = tInterval95(differences.map((row) => row.reduce((sum, d) => sum + d, 0) / problems)).interval;
    const twoWay = twoWayBootstrap95(differences, s);
    held.tHere += Number(holds(t, here)) / simulations;
    held.twoWayHere += Number(holds(twoWay, here)) / simulations;
    held.tEverywhere += Number(holds(t, everywhere)) / simulations;
    held.twoWayEverywhere += Number(holds(twoWay, everywhere)) / simulations;
  }
  return held;
}

const percent = (share: number) => (100 * share).toFixed(1);
const row = (...cells: (string | number)[]) => process.stdout.write(`| ${cells.join(" | ")} |\n`);
const header = (...cells: string[]) => {
  row(...cells);
  row(...cells.map(() => "---"));
};

const PROBLEMS = [30, 100, 300, 1000];
const SHARES = [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98];

function main([which = "", count = "2000", only]: string[]): void {
  const simulations = Number(count);
  if (which === "wilson") {
    header("problems", ...SHARES.map(String));
    for (const n of PROBLEMS) row(n, ...SHARES.map((p) => percent(wilsonCoverage(n, p))));
  } else if (which === "accuracy" || which === "pass@4" || which === "maj@4") {
    header("solve rates", "problems", ...SHARES.map(String));
    for (const spread of ["split", "even"] as const) {
      for (const n of PROBLEMS) {
        row(spread, n, ...SHARES.map((p) => percent(shareCoverage(which, n, p, spread, simulations))));
      }
    }
  } else if (which === "tokens") {
    const sigmas = [0.5, 0.8, 1.2];
    header("problems", ...sigmas.map((sigma) => `sigma ${sigma}`));
    for (const n of PROBLEMS) row(n, ...sigmas.map((sigma) => percent(tokenCoverage(n, sigma, simulations))));
  } else if (which === "paired") {
    const cases = [[0.05, 0], [0.05, 0.03], [0.1, 0], [0.1, 0.06], [0.3, 0], [0.3, 0.1], [0.3, 0.25], [0.6, 0.1]]; // prettier-ignore
    header("problems", ...cases.map(([differ, ahead]) => `${percent(differ)} % differ, B ahead by ${percent(ahead)}`));
    for (const n of PROBLEMS) row(n, ...cases.map(([d, a]) => percent(pairedCoverage(n, d, a, simulations))));
  } else if (which === "seeds") {
    header("seeds", "seed spread", "problem spread", "t, these problems", "t, all problems", "two-way, these", "two-way, all"); // prettier-ignore
    for (const seeds of only === undefined ? [4, 6, 8] : [Number(only)]) {
      for (const seedSpread of [0.03, 0.15]) {
        for (const problemSpread of [0.1, 0.3]) {
          const held = seedCoverage({ seeds, problems: 200, seedSpread, problemSpread }, simulations);
          row(seeds, 100 * seedSpread, 100 * problemSpread, percent(held.tHere), percent(held.tEverywhere), percent(held.twoWayHere), percent(held.twoWayEverywhere)); // prettier-ignore
        }
      }
    }
  } else {
    process.stderr.write(
      "usage: npx jiti bench/coverage.ts wilson|accuracy|pass@4|maj@4|tokens|paired|seeds [simulations] [seeds]\n",
    );
    process.exitCode = 2;
  }
}

if (process.argv[1]?.endsWith("coverage.ts")) main(process.argv.slice(2));
