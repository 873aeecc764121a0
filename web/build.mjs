// Makes the page: one file with the script, the style and the licence of three.js. Usage: node build.mjs OUTPUT
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const output = process.argv[2];
if (!output) throw new Error("usage: node build.mjs OUTPUT");
const read = (name) => readFile(new URL(name, import.meta.url), "utf8");

const bundled = await build({
  entryPoints: [new URL("src/main.js", import.meta.url).pathname],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  write: false,
});
const styled = await build({
  entryPoints: [new URL("src/style.css", import.meta.url).pathname],
  minify: true,
  charset: "utf8",
  write: false,
});
// The end of a script in a text would end the script itself.
const script = bundled.outputFiles[0].text.trim().replaceAll("</script", "<\\/script");
const style = styled.outputFiles[0].text.trim();
const hash = (text) => `'sha256-${createHash("sha256").update(text, "utf8").digest("base64")}'`;
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "img-src 'self' data: blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");
const licence = (await read("node_modules/three/LICENSE")).trim().replaceAll("--", "- -");
const page = (await read("src/index.html"))
  .replace("{{policy}}", () => policy)
  .replace("{{licence}}", () => licence)
  .replace("{{style}}", () => style)
  .replace("{{script}}", () => script);
await writeFile(output, page);
