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

/** The quantile t with P(T <= t) = `p`, for `p` in (0.5, 1) and whole degrees of freedom of at least 1; to 1e-12 relative. */
export function tQuantile(p: number, df: number): number {
  const central = 2 * p - 1;
  let low = 0;
  let high = 1;
  while (centralProbability(high, df) < central) high *= 2;
  while (high - low > 1e-13 * high) {
    const middle = (low + high) / 2;
    if (middle <= low || middle >= high) break;
    if (centralProbability(middle, df) < central) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
