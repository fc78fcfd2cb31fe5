import { UserError } from "../errors.ts";

/**
 * What k samples of a problem would score, as the exact expectation over all k-subsets of its n samples: no estimate here
 * depends on which samples came first.
 */

/**
 * Unbiased pass@k of one problem with `correct` right answers among `n` samples: 1 - C(n - c, k) / C(n, k), as a product that
 * neither overflows nor cancels (Chen et al. 2021, arXiv 2107.03374, equation 1 and its listing).
 */
export function passAtK(n: number, correct: number, k: number): number {
  checkK(n, k);
  let fails = 1;
  for (let i = n - correct + 1; i <= n; i++) fails *= Math.max(0, 1 - k / i);
  return 1 - fails;
}

/**
 * Groups equal answers: the cluster of each sample, named by the index of its first sample; undefined for a sample without an
 * answer, which casts no vote (ReFT, voting@k). A sample joins the cluster of the first sample before it that it equals;
 * identical texts are equal. `equal` must be false where it cannot tell, so that an answer nobody can read stands alone.
 */
export function clusterAnswers(
  answers: readonly (string | undefined)[],
  equal: (first: string, second: string) => boolean,
): (number | undefined)[] {
  const seen = new Map<string, number>();
  return answers.map((answer, i) => {
    if (answer === undefined) return undefined;
    let cluster = seen.get(answer);
    if (cluster === undefined) {
      cluster = i;
      for (const [earlier, of] of seen) {
        if (!equal(earlier, answer)) continue;
        cluster = of;
        break;
      }
      seen.set(answer, cluster);
    }
    return cluster;
  });
}

/**
 * maj@k of one problem: the chance that the most frequent answer among k of its n samples is right. `clusters` as
 * `clusterAnswers` gives them; a cluster is right where `correct` holds for the sample that names it. Tie rule: clusters with
 * equally many votes share the win equally, which is the expectation of "the answer seen first wins" over all orders of the
 * k samples. A subset without a vote is wrong.
 *
 * Exact: counts per cluster in a random k-subset are binomial(size, k / n) draws given that they sum to k, so the numbers of
 * subsets come from products of polynomials with such coefficients, which neither overflow nor cancel. O(n k^2 log k).
 */
export function majorityAtK(clusters: readonly (number | undefined)[], correct: readonly boolean[], k: number): number {
  const n = clusters.length;
  checkK(n, k);
  const sizes = new Map<number | undefined, number>();
  for (const cluster of clusters) sizes.set(cluster, (sizes.get(cluster) ?? 0) + 1);
  const abstaining = sizes.get(undefined) ?? 0;
  const right: number[] = [];
  const wrong: number[] = [];
  for (const [cluster, size] of sizes) {
    if (cluster !== undefined) (correct[cluster] ? right : wrong).push(size);
  }
  if (right.length === 0) return 0;
  if (k === n) return shareOfWinners(right, wrong);

  const coefficient = binomialTerms(k / n);
  let expected = 0;
  for (let top = 1; top <= Math.min(k, Math.max(...right)); top++) {
    const ofRight = waysWithTop(right, top, k, coefficient);
    const ofWrong = waysWithTop(wrong, top, k, coefficient, abstaining);
    for (let a = 1; a < ofRight.length; a++) {
      for (let b = 0; b < ofWrong.length; b++) {
        let ways = 0;
        for (let picked = 0; picked <= k; picked++) ways += ofRight[a][picked] * ofWrong[b][k - picked];
        expected += (ways * a) / (a + b);
      }
    }
  }
  return Math.min(1, expected / coefficient(n, k));
}

function shareOfWinners(right: number[], wrong: number[]): number {
  const top = Math.max(...right, ...wrong);
  const winners = (sizes: number[]) => sizes.filter((size) => size === top).length;
  return winners(right) / (winners(right) + winners(wrong));
}

/**
 * [a][j]: the weight of picking j samples from clusters of these sizes with at most `top` from each and exactly `top` from a
 * of them; `free` further samples are picked without limit.
 */
function waysWithTop(
  sizes: number[],
  top: number,
  k: number,
  coefficient: (size: number, picked: number) => number,
  free = 0,
): Float64Array[] {
  let ways = [new Float64Array(k + 1)];
  for (let picked = 0; picked <= Math.min(free, k); picked++) ways[0][picked] = coefficient(free, picked);
  for (const size of sizes) {
    const most = Math.min(top, size);
    const grows = size >= top && ways.length * top <= k;
    const next = Array.from({ length: ways.length + Number(grows) }, () => new Float64Array(k + 1));
    ways.forEach((row, a) => {
      for (let picked = 0; picked <= most; picked++) {
        const into = next[picked === top ? a + 1 : a];
        if (into === undefined) continue;
        const weight = coefficient(size, picked);
        for (let j = 0; j + picked <= k; j++) into[j + picked] += weight * row[j];
      }
    });
    ways = next;
  }
  return ways;
}

/** C(size, j) q^j (1 - q)^(size - j), remembered by size. */
function binomialTerms(q: number): (size: number, picked: number) => number {
  const rows = new Map<number, Float64Array>();
  return (size, picked) => {
    let row = rows.get(size);
    if (row === undefined) {
      row = new Float64Array(size + 1);
      let log = size * Math.log(1 - q);
      for (let j = 0; j <= size; j++) {
        row[j] = Math.exp(log);
        log += Math.log(((size - j) / (j + 1)) * (q / (1 - q)));
      }
      rows.set(size, row);
    }
    return row[picked];
  };
}

/**
 * best-of-k of one problem: the expected `value` of the sample with the highest score among k of its n samples. Equal scores
 * share the choice equally. A sample without a score is no candidate; a subset without a candidate counts 0 (ReFT, reranking).
 */
export function bestOfK(scores: readonly (number | undefined)[], values: readonly number[], k: number): number {
  const n = scores.length;
  checkK(n, k);
  const groups = new Map<number, { size: number; sum: number }>();
  scores.forEach((score, i) => {
    if (score === undefined) return;
    const group = groups.get(score) ?? { size: 0, sum: 0 };
    groups.set(score, { size: group.size + 1, sum: group.sum + values[i] });
  });
  let expected = 0;
  let above = 0;
  let noneAbove = 1;
  for (const [, { size, sum }] of [...groups].sort(([a], [b]) => b - a)) {
    const noneHere = noneOf(n, above + size, k);
    expected += (noneAbove - noneHere) * (sum / size);
    above += size;
    noneAbove = noneHere;
  }
  return expected;
}

/** The chance that k of n samples hold none of `marked` of them. */
const noneOf = (n: number, marked: number, k: number): number => 1 - passAtK(n, marked, k);

function checkK(n: number, k: number): void {
  if (!Number.isInteger(k) || k < 1) throw new UserError(`k must be a whole number above 0, found ${k}`);
  if (k > n) {
    throw new UserError(
      `k = ${k} needs at least ${k} samples of each problem, found ${n}: sample more (--n ${k}) or ask for a smaller k`,
    );
  }
}
