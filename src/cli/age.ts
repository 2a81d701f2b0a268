/** Moments, as people say them. */

const RELATIVE = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
/** Each unit with its seconds, and with how many of it the next one begins. */
const UNITS = [
  ['second', 1, 60],
  ['minute', 60, 60],
  ['hour', 3600, 24],
  ['day', 86_400, 60],
  ['month', 2_629_746, 24],
  ['year', 31_556_952, Number.POSITIVE_INFINITY],
] as const;
const JUST_NOW_SECONDS = 5;

/** `3 minutes ago`, `in 2 hours`. */
export function formatAge(moment: Date, now = Date.now()): string {
  const seconds = (moment.getTime() - now) / 1000;
  if (!Number.isFinite(seconds)) return 'at an unknown time';
  if (Math.abs(seconds) < JUST_NOW_SECONDS) return 'just now';
  for (const [unit, length, most] of UNITS) {
    const count = Math.trunc(seconds / length);
    if (Math.abs(count) < most) return RELATIVE.format(count, unit);
  }
  return moment.toISOString();
}

/** `2026-03-01 14:05:09`, in the zone of this machine. */
export function formatMoment(moment: Date): string {
  if (Number.isNaN(moment.getTime())) return 'unknown';
  const two = (value: number) => String(value).padStart(2, '0');
  const date = [moment.getFullYear(), two(moment.getMonth() + 1), two(moment.getDate())].join('-');
  return `${date} ${[moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(two).join(':')}`;
}
