import { type Ended, startRifft } from "./cli.ts";

/** One start of the program, and when it is stopped. */
export interface Attempt {
  args: string[];
  /** Asked every two milliseconds (or `every`). */
  due: () => boolean;
  /** Milliseconds from then on. */
  delay: number;
  signal?: NodeJS.Signals;
  every?: number;
}

/** Starts rifft again and again: the first `times` starts are stopped once they are due, the next one may end. `stopped`: how often it was. */
export async function stopAgainAndAgain(
  times: number,
  next: (stopped: number) => Attempt,
): Promise<Ended & { stopped: number }> {
  for (let stopped = 0; ; stopped++) {
    const { args, due, delay, signal = "SIGKILL", every = 2 } = next(stopped);
    const { child, end } = startRifft(args);
    const poll = setInterval(() => {
      if (stopped === times || !due()) return;
      clearInterval(poll);
      setTimeout(() => child.kill(signal), delay);
    }, every);
    const ended = await end;
    clearInterval(poll);
    // Ctrl-C ends with 130.
    if (ended.signal !== "SIGKILL" && ended.code !== 130) return { ...ended, stopped };
  }
}
