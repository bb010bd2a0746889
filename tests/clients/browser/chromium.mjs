// Debian's Chromium without a window, driven by playwright-core, which brings no browser of its own.

import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium'
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  // A name that is not this machine's, as far as the browser knows.
  '--host-resolver-rules=MAP elsewhere.test 127.0.0.1',
]

export async function launch() {
  if (!existsSync(EXECUTABLE)) {
    throw new Error(`there is no ${EXECUTABLE}: install Debian's package chromium, or name another one in CHROMIUM`)
  }
  // `headless` adds --headless.
  return chromium.launch({ executablePath: EXECUTABLE, headless: true, args: ARGUMENTS })
}
