import { Command } from "commander";
import { bench } from "../bench/bench.ts";
import { figures } from "../bench/figures.ts";
import { formatFigure } from "../bench/report.ts";
import { StatusLine } from "./output.ts";

export function benchCommand(): Command {
  return new Command("bench")
    .description("the engine against this machine's measured limits: every figure with its floor and the ratio")
    .argument("[names...]", `figures (default: the core ones); there are ${figures.map((one) => one.name).join(", ")}`)
    .option("--json", "print the result as JSON")
    .action(async (names: string[], options: { json?: boolean }) => {
      const status = new StatusLine();
      try {
        const report = await bench(names, {
          onProgress: (text) => status.show(text),
          onFigure(figure) {
            status.clear();
            if (options.json !== true) process.stdout.write(`${formatFigure(figure)}\n\n`);
          },
        });
        const { rifft, platform, cpu, threads, onnxruntime } = report.environment;
        const machine = `rifft ${rifft}, ${platform}, ${cpu}, ${threads} threads, ONNX Runtime ${onnxruntime}`;
        process.stdout.write(
          options.json === true
            ? `${JSON.stringify(report, null, 2)}\n`
            : `${machine}; ${Math.round(report.seconds)} seconds in all\n`,
        );
      } finally {
        status.clear();
      }
    });
}
