import { availableParallelism } from "node:os";
import { UserError } from "../errors.ts";

/** Threads that this process computes with: all cores, or `RIFFT_THREADS`. Throws a UserError where that is no positive whole number. */
export function threadCount(): number {
  const named = process.env.RIFFT_THREADS;
  if (named === undefined || named === "") return availableParallelism();
  if (!/^[1-9]\d*$/.test(named)) {
    throw new UserError(`RIFFT_THREADS must be a positive whole number, found ${JSON.stringify(named)}`);
  }
  return Number(named);
}
