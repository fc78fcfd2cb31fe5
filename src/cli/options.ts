import { InvalidArgumentError } from "commander";

/** Parsers of option values; what they refuse is a mistake on the command line (exit code 2). */

export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
}

export function positiveWhole(text: string): number {
  const value = wholeNumber(text);
  if (value === 0) throw new InvalidArgumentError("expected a whole number above 0.");
  return value;
}

export function nonNegative(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError("expected a number, 0 or more.");
  }
  return value;
}

export function fraction(text: string): number {
  const value = nonNegative(text);
  if (value === 0 || value > 1) throw new InvalidArgumentError("expected a number above 0 and at most 1.");
  return value;
}

/** Collects an option that may be given several times. */
export function collect(value: string, before: string[]): string[] {
  return [...before, value];
}
