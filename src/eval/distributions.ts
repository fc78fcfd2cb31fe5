/** 97.5 % and 80 % quantiles of the standard normal distribution. */
export const Z975 = 1.959963984540054;
export const Z80 = 0.8416212335729143;

/** P(Z <= x) of the standard normal distribution, by the series of Marsaglia 2004 (J. Stat. Software 11:4, equation 3); to 1e-15. */
export function normalCdf(x: number): number {
  if (Math.abs(x) > 8) return x < 0 ? 0 : 1;
  let term = x;
  let sum = x;
  for (let i = 3; sum + term !== sum; i += 2) {
    term *= (x * x) / i;
    sum += term;
  }
  return 0.5 + (sum * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
}

/** The quantile z with P(Z <= z) = `p`, for `p` in (0, 1); bounded by -8 and 8. */
export function normalQuantile(p: number): number {
  return bisect((z) => normalCdf(z) < p, -8, 8);
}

/** The point of [low, high] up to which `below` holds. */
function bisect(below: (x: number) => boolean, low: number, high: number): number {
  for (;;) {
    const middle = (low + high) / 2;
    if (middle <= low || middle >= high) return middle;
    if (below(middle)) low = middle;
    else high = middle;
  }
}

/**
 * Student's t with whole degrees of freedom. The probability that |T| < t is a finite trigonometric sum (Abramowitz and Stegun
 * 1964, 26.7.3 and 26.7.4), so nothing here is approximated but by rounding.
 */
function centralProbability(t: number, df: number): number {
  const theta = Math.atan(t / Math.sqrt(df));
  const cos2 = Math.cos(theta) ** 2;
  const odd = df % 2 === 1;
  let term = odd ? Math.cos(theta) : 1;
  let sum = df === 1 ? 0 : term;
  for (let i = odd ? 3 : 2; i < df; i += 2) {
    term *= ((i - 1) / i) * cos2;
    sum += term;
  }
  return odd ? (2 / Math.PI) * (theta + Math.sin(theta) * sum) : Math.sin(theta) * sum;
}

/** The quantile t with P(T <= t) = `p`, for `p` in (0.5, 1) and whole degrees of freedom of at least 1. */
export function tQuantile(p: number, df: number): number {
  const central = 2 * p - 1;
  let high = 1;
  while (centralProbability(high, df) < central) high *= 2;
  return bisect((t) => centralProbability(t, df) < central, 0, high);
}

/** P(|T| >= |t|), the two-sided p value of a t statistic, for whole degrees of freedom of at least 1. */
export function tTwoSided(t: number, df: number): number {
  return Number.isFinite(t) ? Math.max(0, 1 - centralProbability(Math.abs(t), df)) : 0;
}
