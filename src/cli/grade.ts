import { createInterface } from "node:readline";
import { Command } from "commander";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { grade } from "../grade/index.ts";

const lineSchema = z.object({ gold: z.union([z.string(), z.array(z.string()).min(1)]), pred: z.string() });

export function gradeCommand(): Command {
  return new Command("grade")
    .description(
      'grades answers: JSON lines {"gold", "pred"} on standard input, one line {"equal", "verdict", "extracted", "rule"} out each',
    )
    .option("--explain", "adds what the strict format finds, the reason and both parsed forms")
    .action(async (options: { explain?: true }) => {
      let line = 0;
      for await (const text of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
        line++;
        if (text.trim() === "") continue;
        const { gold, pred } = readLine(text, line);
        const { strict, flexible } = grade(gold, pred, { explain: options.explain });
        const { equal, verdict, rule, reason, extracted, forms } = flexible;
        const result = { equal, verdict, extracted: extracted?.text ?? null, rule };
        const explained = {
          strategy: extracted?.strategy ?? null,
          reason,
          forms,
          strict: { equal: strict.equal, extracted: strict.extracted?.text ?? null },
        };
        process.stdout.write(`${JSON.stringify(options.explain ? { ...result, ...explained } : result)}\n`);
      }
    });
}

function readLine(text: string, line: number): z.infer<typeof lineSchema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(
      `line ${line} of standard input is not JSON (${error instanceof Error ? error.message : String(error)}): give one {"gold": "...", "pred": "..."} a line`,
    );
  }
  const parsed = lineSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new UserError(
    `line ${line} of standard input: ${path.length > 0 ? `"${path.join(".")}": ` : ""}${message}; give {"gold": text or list of texts, "pred": text}`,
  );
}
