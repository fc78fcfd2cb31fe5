/** An open page. */
export interface Tab {
  /** What the page said went wrong: exceptions, refusals, dialogs. */
  problems: string[];
  /** Addresses that it asked for, its own included. */
  requests: string[];
  url: string;
  /** Evaluates an expression in the page; a promise is awaited. */
  run<T = unknown>(expression: string): Promise<T>;
  /** Waits until an expression is true; returns the milliseconds since the page was asked for. */
  until(expression: string, seconds?: number): Promise<number>;
  press(key: string): Promise<void>;
  type(text: string): Promise<void>;
  /** A PNG of what is seen, or of the whole page. */
  screenshot(whole?: boolean): Promise<Buffer>;
}

export interface Browser {
  open(file: string, options?: { width?: number; height?: number; dark?: boolean }): Promise<Tab>;
  close(): Promise<void>;
}

/** A Chromium of this machine: the one that CHROMIUM names, or one in a usual place; undefined where there is none. */
export function findChromium(): string | undefined;

/** Starts a headless Chromium and speaks its DevTools protocol over two pipes. */
export function openBrowser(program: string): Promise<Browser>;
