// Runs the page's own script without a page: node browser.mjs PAGE PACKAGE... with --trust FOLDER; prints JSON answers.
import { readFileSync, readdirSync } from "node:fs";
import { basename } from "node:path";
import vm from "node:vm";
const [page, trustFolder, ...packages] = process.argv.slice(2);
const script = /<script>([\s\S]*?)<\/script>/.exec(readFileSync(page, "utf-8"))[1];
const context = vm.createContext({ TextDecoder, TextEncoder, crypto, atob, btoa, Uint8Array, Int32Array, DataView, ArrayBuffer, BigInt, console });
vm.runInContext(`${script}\nglobalThis.verifyPackage = verifyPackage;`, context);
const trust = new Map();
if (trustFolder !== "-")
  for (const name of readdirSync(trustFolder, { recursive: true })) if (/\.(vkeys?|pem|pub)$/.test(name)) trust.set(basename(name), new Uint8Array(readFileSync(`${trustFolder}/${name}`)));
const answers = [];
for (const one of packages) answers.push(await context.verifyPackage(new Uint8Array(readFileSync(one)), trust));
console.log(JSON.stringify(answers));
