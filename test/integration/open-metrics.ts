/** A reader of the OpenMetrics text form that takes nothing but what the specification allows. */

export interface Family {
  readonly type: string;
  readonly samples: {
    readonly name: string;
    readonly labels: ReadonlyMap<string, string>;
    readonly value: number;
  }[];
}

/** Suffixes of the samples of each type; openmetrics-specification, "Suffixes". */
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: ['_total', '_created'],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count', '_created'],
  summary: ['', '_sum', '_count', '_created'],
};
const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const METADATA = new RegExp(`^# (HELP|TYPE|UNIT) (${NAME})(?: (.*))?$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`);
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(,|$)/y;

/** @throws Error saying which line is wrong */
export function parseOpenMetrics(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  if (!text.endsWith('# EOF\n')) throw new Error('the end is missing');
  let current: [string, Family] | undefined;
  for (const line of text.slice(0, -'# EOF\n'.length).split('\n').slice(0, -1)) {
    const [, keyword, named = '', rest = ''] = METADATA.exec(line) ?? [];
    if (keyword === 'TYPE') {
      if (SUFFIXES[rest] === undefined) throw new Error(`unknown type: ${line}`);
      if (families.has(named)) throw new Error(`a family twice: ${line}`);
      current = [named, { type: rest, samples: [] }];
      families.set(...current);
    }
    if (keyword !== undefined) continue;
    const [, name = '', labels = '', number = ''] = SAMPLE.exec(line) ?? [];
    if (current === undefined || name === '') throw new Error(`not a sample: ${line}`);
    const [family, { type, samples }] = current;
    if (!SUFFIXES[type]?.some((suffix) => name === family + suffix))
      throw new Error(`not one of the ${type} ${family}: ${line}`);
    const value = number === '+Inf' ? Number.POSITIVE_INFINITY : Number(number);
    if (Number.isNaN(value)) throw new Error(`no number: ${line}`);
    if (type === 'counter' && value < 0) throw new Error(`a counter below 0: ${line}`);
    samples.push({ name, labels: labelsOf(labels, line), value });
  }
  for (const [name, family] of families) if (family.type === 'histogram') checkBuckets(name, family);
  return families;
}

function labelsOf(text: string, line: string): Map<string, string> {
  const labels = new Map<string, string>();
  LABEL.lastIndex = 0;
  for (let at = 0; at < text.length; at = LABEL.lastIndex) {
    const [, name = '', value = ''] = LABEL.exec(text) ?? [];
    if (name === '' || labels.has(name)) throw new Error(`labels: ${line}`);
    labels.set(name, value);
  }
  return labels;
}

/** Buckets of one set of labels grow, end with +Inf, and agree with the count. */
function checkBuckets(name: string, { samples }: Family): void {
  const sets = new Map<string, Family['samples']>();
  for (const sample of samples) {
    const key = [...sample.labels].filter(([label]) => label !== 'le').join();
    sets.set(key, [...(sets.get(key) ?? []), sample]);
  }
  for (const [key, set] of sets) {
    let [last, limit] = [0, Number.NEGATIVE_INFINITY];
    for (const { labels, value } of set.filter((sample) => sample.name === `${name}_bucket`)) {
      const le = labels.get('le') === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.get('le'));
      if (!(le > limit) || value < last) throw new Error(`${name} ${key}: buckets do not grow`);
      [last, limit] = [value, le];
    }
    const count = set.find((sample) => sample.name === `${name}_count`)?.value;
    if (limit !== Number.POSITIVE_INFINITY || count !== last)
      throw new Error(`${name} ${key}: ${count} in all, ${last} in the last bucket (${limit})`);
  }
}
