// Records the JSON Schemas that Zod 3, Zod 4, TypeBox and Valibot make of declarations.
//
//     npm install --ignore-scripts --prefix FOLDER   # with package.json beside this file
//     node record.mjs FOLDER > schemas.json
//
// For each generator: the schema of each declaration, or null where it can say none.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const require = createRequire(resolve(process.argv[2], "package.json"));
const load = async (name) => await import(pathToFileURL(require.resolve(name)).href);

const named = (module) => module.z ?? module;
const z4 = named(await load("zod/v4"));
const z3 = named(await load("zod/v3"));
const { zodToJsonSchema } = await load("zod-to-json-schema");
const { Type: t } = await load("@sinclair/typebox");
const v = await load("valibot");
const { toJsonSchema } = await load("@valibot/to-json-schema");

// What both versions of Zod declare alike.
const zod = (z) => {
  const color = z.enum(["red", "green"]);
  const point = z.object({ x: z.number(), y: z.number() });
  const category = z.object({ name: z.string(), below: z.lazy(() => z.array(category)) });
  return {
    plain: z.object({ name: z.string(), age: z.number().int(), on: z.boolean() }),
    optional: z.object({ a: z.string().optional(), b: z.string().nullable(), c: z.string().nullish() }),
    defaults: z.object({ a: z.string().default("x"), b: z.number().int().default(3) }),
    lengths: z.object({ a: z.string().min(2).max(4), b: z.string().length(3), c: z.string().nonempty() }),
    patterns: z.object({ a: z.string().regex(/^[a-z]+-\d{2}$/), b: z.string().startsWith("go"), c: z.string().endsWith("!"), d: z.string().includes("mid") }),
    addresses: z.object({ mail: z.string().email(), url: z.string().url() }),
    identifiers: z.object({ uuid: z.string().uuid(), cuid: z.string().cuid(), ulid: z.string().ulid() }),
    times: z.object({ at: z.string().datetime(), day: z.string().date(), clock: z.string().time() }),
    spans: z.object({ span: z.string().duration() }),
    bases: z.object({ data: z.string().base64() }),
    integers: z.object({ a: z.number().int().min(1).max(10), b: z.number().int().positive(), c: z.number().int().nonnegative() }),
    numbers: z.object({ a: z.number().gt(0).lt(1), b: z.number().multipleOf(0.5), c: z.number().min(-2.5) }),
    enums: z.object({ color, fixed: z.literal("always"), number: z.literal(7) }),
    literals: z.object({ mode: z.union([z.literal("a"), z.literal("b"), z.literal(3)]) }),
    arrays: z.object({ a: z.array(z.string()).min(1).max(3), b: z.array(color), c: z.array(point).length(2) }),
    tuples: z.object({ pair: z.tuple([z.string(), z.number()]), more: z.tuple([z.string()]).rest(z.number()) }),
    records: z.object({ any: z.record(z.string(), z.number()), nested: z.record(z.string(), point) }),
    unions: z.object({ a: z.union([z.string(), z.number()]), b: z.union([point, z.null()]) }),
    tagged: z.object({ shape: z.discriminatedUnion("kind", [z.object({ kind: z.literal("circle"), r: z.number() }), z.object({ kind: z.literal("box"), w: z.number(), h: z.number() })]) }),
    strict: z.object({ inner: z.object({ a: z.string() }).strict() }).strict(),
    open: z.object({ inner: z.object({ a: z.string() }).passthrough() }),
    catchall: z.object({ inner: z.object({ a: z.string() }).catchall(z.number()) }),
    shared: z.object({ from: point, to: point, via: z.array(point) }),
    recursive: z.object({ root: category }),
    intersection: z.object({ both: z.intersection(z.object({ a: z.string() }), z.object({ b: z.number() })) }),
    partial: z.object({ change: z.object({ a: z.string(), b: z.number() }).partial() }),
    described: z.object({ city: z.string().describe("Where") }).describe("Weather"),
    anything: z.object({ a: z.any(), b: z.unknown().optional() }),
    refined: z.object({ even: z.number().int().refine((n) => n % 2 === 0) }),
    coerced: z.object({ n: z.coerce.number().int() }),
    branded: z.object({ id: z.string().brand() }),
    readonly: z.object({ list: z.array(z.string()).readonly() }),
  };
};

const point4 = z4.object({ x: z4.number() }).meta({ id: "Point" });
const tree4 = z4.object({ name: z4.string(), get children() { return z4.array(tree4); } });
const onlyZod4 = {
  getters: tree4,
  formats: z4.object({ mail: z4.email(), v4: z4.uuidv4(), url: z4.url(), ip: z4.ipv4(), six: z4.ipv6() }),
  moreFormats: z4.object({ net: z4.cidrv4(), nano: z4.nanoid(), emoji: z4.emoji(), b64u: z4.base64url(), e164: z4.e164() }),
  isoTimes: z4.object({ at: z4.iso.datetime({ offset: true }), day: z4.iso.date(), clock: z4.iso.time(), span: z4.iso.duration() }),
  ints: z4.object({ a: z4.int(), b: z4.int32(), c: z4.uint32(), d: z4.float32() }),
  registered: z4.object({ a: point4, b: z4.array(point4) }),
  templateLiteral: z4.object({ size: z4.templateLiteral([z4.number(), z4.enum(["px", "em"])]) }),
  enumRecord: z4.object({ counts: z4.record(z4.enum(["a", "b"]), z4.number()), some: z4.partialRecord(z4.enum(["a", "b"]), z4.number()) }),
  strictObject: z4.strictObject({ a: z4.string() }),
  looseObject: z4.looseObject({ a: z4.string() }),
  json: z4.object({ data: z4.json() }),
  caseChecks: z4.object({ low: z4.string().lowercase(), up: z4.string().uppercase(), trimmed: z4.string().trim().min(1) }),
  multiPattern: z4.object({ s: z4.string().regex(/^a/).regex(/z$/).min(3) }),
  stringbool: z4.object({ on: z4.stringbool() }),
  literalList: z4.object({ mode: z4.literal(["a", 2, null, true]) }),
  piped: z4.object({ n: z4.string().pipe(z4.string().max(5)) }),
  exclusive: z4.object({ a: z4.xor([z4.string(), z4.number()]) }),
};

const node = t.Recursive((self) => t.Object({ id: t.String(), below: t.Array(self) }), { $id: "Node" });
const typebox = {
  plain: t.Object({ name: t.String(), age: t.Integer(), on: t.Boolean() }),
  optional: t.Object({ a: t.Optional(t.String()), b: t.Union([t.String(), t.Null()]) }),
  strings: t.Object({ a: t.String({ minLength: 2, maxLength: 4 }), b: t.String({ pattern: "^[a-z]+$" }) }),
  formats: t.Object({ at: t.String({ format: "date-time" }), mail: t.String({ format: "email" }), id: t.String({ format: "uuid" }) }),
  numbers: t.Object({ a: t.Integer({ minimum: 1, maximum: 9 }), b: t.Number({ exclusiveMinimum: 0 }), c: t.Number({ multipleOf: 0.5 }) }),
  enums: t.Object({ e: t.Enum({ Red: "red", Green: "green" }), l: t.Literal("x"), u: t.Union([t.Literal("a"), t.Literal(2)]) }),
  arrays: t.Object({ a: t.Array(t.String(), { minItems: 1, maxItems: 2 }), unique: t.Array(t.Integer(), { uniqueItems: true }) }),
  contains: t.Object({ a: t.Array(t.Union([t.String(), t.Integer()]), { contains: t.Integer(), minContains: 1 }) }),
  tuples: t.Object({ pair: t.Tuple([t.String(), t.Number()]) }),
  records: t.Object({ r: t.Record(t.String(), t.Number()), i: t.Record(t.Integer(), t.String()), u: t.Record(t.Union([t.Literal("a"), t.Literal("b")]), t.Number()) }),
  patternRecords: t.Object({ r: t.Record(t.String({ pattern: "^x-" }), t.String(), { additionalProperties: false }) }),
  templateLiterals: t.Object({ s: t.TemplateLiteral("on-${a|b}") }),
  strict: t.Object({ a: t.String() }, { additionalProperties: false }),
  open: t.Object({ o: t.Object({ a: t.String() }, { additionalProperties: t.Number() }) }),
  intersect: t.Object({ o: t.Intersect([t.Object({ a: t.String() }), t.Object({ b: t.Number() })]) }),
  closedIntersect: t.Object({ o: t.Intersect([t.Object({ a: t.String() }), t.Object({ b: t.Number() })], { unevaluatedProperties: false }) }),
  composite: t.Composite([t.Object({ a: t.String() }), t.Object({ b: t.Number() })]),
  partial: t.Partial(t.Object({ a: t.String(), b: t.Number() })),
  picked: t.Pick(t.Object({ a: t.String(), b: t.Number() }), ["a"]),
  recursive: t.Object({ root: node }),
  not: t.Object({ a: t.Not(t.String()) }),
  module: t.Module({ Leaf: t.Object({ v: t.Number() }), Pair: t.Object({ l: t.Ref("Leaf"), r: t.Ref("Leaf") }) }).Import("Pair"),
  anything: t.Object({ a: t.Any(), b: t.Unknown() }),
  tagged: t.Object({ shape: t.Union([t.Object({ k: t.Literal("c"), r: t.Number() }), t.Object({ k: t.Literal("b"), w: t.Number() })]) }),
};

const folder = v.object({ name: v.string(), inside: v.array(v.lazy(() => folder)) });
const valibot = {
  plain: v.object({ name: v.string(), age: v.pipe(v.number(), v.integer()), on: v.boolean() }),
  optional: v.object({ a: v.optional(v.string()), b: v.nullable(v.string()), c: v.nullish(v.string(), "x") }),
  strings: v.object({ a: v.pipe(v.string(), v.minLength(2), v.maxLength(4)), b: v.pipe(v.string(), v.regex(/^[a-z]+$/)), c: v.pipe(v.string(), v.nonEmpty()) }),
  formats: v.object({ mail: v.pipe(v.string(), v.email()), at: v.pipe(v.string(), v.isoTimestamp()), day: v.pipe(v.string(), v.isoDate()), id: v.pipe(v.string(), v.uuid()), ip: v.pipe(v.string(), v.ipv4()) }),
  numbers: v.object({ a: v.pipe(v.number(), v.minValue(1), v.maxValue(9)), b: v.pipe(v.number(), v.multipleOf(5)) }),
  enums: v.object({ p: v.picklist(["a", "b"]), l: v.literal("x"), e: v.enum({ A: 1, B: 2 }) }),
  arrays: v.object({ a: v.pipe(v.array(v.string()), v.minLength(1)), t: v.tuple([v.string(), v.number()]), s: v.strictTuple([v.string()]) }),
  records: v.object({ r: v.record(v.string(), v.number()), k: v.record(v.picklist(["a", "b"]), v.number()) }),
  objects: v.object({ s: v.strictObject({ a: v.string() }), l: v.looseObject({ a: v.string() }), r: v.objectWithRest({ a: v.string() }, v.number()) }),
  variant: v.object({ shape: v.variant("k", [v.object({ k: v.literal("c"), r: v.number() }), v.object({ k: v.literal("b"), w: v.number() })]) }),
  union: v.object({ u: v.union([v.string(), v.number()]), i: v.intersect([v.object({ a: v.string() }), v.object({ b: v.number() })]) }),
  recursive: folder,
};

const attempt = (make) => {
  try {
    return make();
  } catch {
    return null;
  }
};
const all = (declared, make) =>
  Object.fromEntries(Object.entries(declared).map(([name, each]) => [name, attempt(() => make(each))]));

const record = { typebox: all(typebox, (each) => JSON.parse(JSON.stringify(each))) };
for (const target of ["jsonSchema7", "jsonSchema2019-09", "openApi3", "openAi"]) {
  record[`zod 3, ${target}`] = all(zod(z3), (each) => zodToJsonSchema(each, { target }));
}
for (const target of ["draft-2020-12", "draft-7", "draft-4", "openapi-3.0"]) {
  for (const io of ["input", "output"]) {
    record[`zod 4, ${target}, ${io}`] = all({ ...zod(z4), ...onlyZod4 }, (each) => z4.toJSONSchema(each, { target, io }));
  }
}
for (const target of ["draft-07", "draft-2020-12"]) {
  record[`valibot, ${target}`] = all(valibot, (each) => toJsonSchema(each, { target, errorMode: "ignore" }));
}
// Targets often say the same but for the name of the draft: each schema once, with who made it first.
const found = new Map();
for (const [generator, schemas] of Object.entries(record)) {
  for (const [name, schema] of Object.entries(schemas)) {
    const { $schema, ...said } = schema ?? {};
    const key = JSON.stringify(said);
    if (schema !== null && !found.has(key)) found.set(key, { generator, name, schema });
  }
}
const lines = [...found.values()].map((each) => JSON.stringify(each));
process.stdout.write(`[\n${lines.join(",\n")}\n]\n`);
