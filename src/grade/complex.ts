/** A complex number in doubles. */
export interface Complex {
  readonly re: number;
  readonly im: number;
}

export const complex = (re: number, im = 0): Complex => ({ re, im });
export const add = (a: Complex, b: Complex): Complex => ({ re: a.re + b.re, im: a.im + b.im });
export const multiply = (a: Complex, b: Complex): Complex =>
  a.im === 0 && b.im === 0
    ? { re: a.re * b.re, im: 0 }
    : { re: a.re * b.re - a.im * b.im, im: a.re * b.im + a.im * b.re };
export const modulus = (a: Complex): number => (a.im === 0 ? Math.abs(a.re) : Math.hypot(a.re, a.im));
export const isReal = (a: Complex): boolean => a.im === 0;

export function divide(a: Complex, b: Complex): Complex {
  if (a.im === 0 && b.im === 0) return { re: a.re / b.re, im: 0 };
  const m = b.re * b.re + b.im * b.im;
  return { re: (a.re * b.re + a.im * b.im) / m, im: (a.im * b.re - a.re * b.im) / m };
}

export function exp(a: Complex): Complex {
  const r = Math.exp(a.re);
  return a.im === 0 ? { re: r, im: 0 } : { re: r * Math.cos(a.im), im: r * Math.sin(a.im) };
}

/** The principal logarithm. */
export function log(a: Complex): Complex {
  if (a.im === 0 && a.re > 0) return { re: Math.log(a.re), im: 0 };
  return { re: Math.log(modulus(a)), im: Math.atan2(a.im, a.re) };
}

/** a to a whole exponent by repeated squaring. */
export function wholePower(a: Complex, to: number): Complex {
  if (a.im === 0) return { re: a.re ** to, im: 0 };
  let result = complex(1);
  let base = to < 0 ? divide(complex(1), a) : a;
  for (let left = Math.abs(to); left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = multiply(result, base);
    base = multiply(base, base);
  }
  return result;
}

/** The principal value of a^b. */
export function power(a: Complex, b: Complex): Complex {
  if (b.im === 0 && Number.isInteger(b.re) && Math.abs(b.re) <= 1024) return wholePower(a, b.re);
  if (a.re === 0 && a.im === 0) return b.re > 0 ? a : complex(Number.NaN);
  if (a.im === 0 && b.im === 0 && a.re > 0) return complex(a.re ** b.re);
  return exp(multiply(b, log(a)));
}

const I = complex(0, 1);
const MINUS_I = complex(0, -1);

export function sin(a: Complex): Complex {
  return a.im === 0
    ? complex(Math.sin(a.re))
    : complex(Math.sin(a.re) * Math.cosh(a.im), Math.cos(a.re) * Math.sinh(a.im));
}

export function cos(a: Complex): Complex {
  return a.im === 0
    ? complex(Math.cos(a.re))
    : complex(Math.cos(a.re) * Math.cosh(a.im), -Math.sin(a.re) * Math.sinh(a.im));
}

export const sinh = (a: Complex): Complex =>
  a.im === 0 ? complex(Math.sinh(a.re)) : multiply(MINUS_I, sin(multiply(I, a)));
export const cosh = (a: Complex): Complex => (a.im === 0 ? complex(Math.cosh(a.re)) : cos(multiply(I, a)));
