// Aedes on plain TCP with persistence in memory, started as in its documentation.
import { createServer } from 'node:net'
import { Aedes } from 'aedes'

const port = Number(process.argv[2])
const broker = await Aedes.createBroker({ concurrency: 1000 })
const server = createServer({ noDelay: true }, broker.handle)
server.listen({ port, host: '127.0.0.1', backlog: 1024 })
