// One row for each sensor, kept up to date by the server.
'use strict'

const broker = new URLSearchParams(location.search).get('broker') ?? `http://${location.hostname}:8080`
const state = document.getElementById('state')
const rows = new Map()

// In a URL the wildcard + has to be written %2B.
const source = new EventSource(`${broker}/v1/events?topic=sensors/%2B/temperature&retained=true`)
source.onopen = () => { state.textContent = 'Live' }
source.onerror = () => {
  state.textContent = source.readyState === EventSource.CLOSED ? 'Refused: is this origin in http.cors_origins?' : 'Reconnecting…'
}
source.onmessage = ({ data }) => {
  const { topic, payload, time } = JSON.parse(data)
  const celsius = Number(payload)
  if (payload === undefined || payload === '' || Number.isNaN(celsius)) return
  const [, sensor] = topic.split('/')
  const row = rows.get(sensor) ?? addRow(sensor)
  row.highest = Math.max(row.highest, celsius)
  row.cells[1].textContent = celsius.toFixed(1)
  row.cells[2].textContent = row.highest.toFixed(1)
  row.cells[3].textContent = time ? new Date(time).toLocaleTimeString() : 'before'
}
// After too long an absence some readings are gone. The newest of each sensor is what we are here for, so we begin anew.
source.addEventListener('gap', () => location.reload())

function addRow(sensor) {
  const element = document.createElement('tr')
  const cells = Array.from({ length: 4 }, () => element.appendChild(document.createElement('td')))
  cells[0].textContent = sensor
  document.getElementById('sensors').append(element)
  const row = { cells, highest: -Infinity }
  rows.set(sensor, row)
  return row
}
