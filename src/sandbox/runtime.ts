import { realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import { UserError } from "../errors.ts";

/** The folder of the pyodide package, with a separator at its end. Throws a UserError where it is not installed. */
export function pyodideFolder(resolve: (name: string) => string = createRequire(import.meta.url).resolve): string {
  try {
    return realpathSync(dirname(resolve("pyodide/package.json"))) + sep;
  } catch {
    throw new UserError(
      "programs need the npm package pyodide, which is not installed: run `npm install` again (or `npm install pyodide` beside rifft); tasks whose responses are text work without it",
    );
  }
}

/** What Node itself denies a worker, by its version. */
export interface Protection {
  /** The flags that ask for it. */
  flags: string[];
  /** What is weaker than on the newest Node, in words; empty where nothing is. */
  weaker: string[];
}

export function nodeProtection(
  version: string = process.versions.node,
  allowed: ReadonlySet<string> = process.allowedNodeEnvironmentFlags,
): Protection {
  const [major] = version.split(".").map(Number);
  const stable = allowed.has("--permission");
  return {
    flags: [stable ? "--permission" : "--experimental-permission"],
    weaker: [
      ...(stable ? [] : ["Node's permission model is experimental in this version"]),
      // Its permission model covers the network from version 25 on.
      ...(major < 25 ? ["Node's permission model does not cover the network: only the sandbox's own gates do"] : []),
    ],
  };
}
