// What a scenario saw, as JSON can hold it.

// The error that `action` ends with, by the name of its class, and what it says.
export async function error(action) {
  try {
    await action();
  } catch (raised) {
    return { type: raised.constructor.name.replace(/^_/, ""), message: raised.message };
  }
  return null;
}

// The fields of a sandbox that the SDK read.
export function sandbox({ info }) {
  const { id, template, cpu, memory_mb, status, metadata, from_snapshot, boot_ms, boot_mode } = info;
  return { id, template, cpu, memory_mb, status, metadata, from_snapshot, boot_ms, boot_mode };
}

// A command's outputs and exit code.
export const result = ({ stdout, stderr, exitCode }) => [stdout, stderr, exitCode];

// A file or directory.
export const entry = ({ name, path, is_dir, size }) => ({ name, path, is_dir, size });
