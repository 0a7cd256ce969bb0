// The broker Aedes at an address: node aedes_broker.js HOST PORT. Its sessions and retained messages are in memory.
'use strict'

const { createRequire } = require('module')
const net = require('net')
const path = require('path')
const { Aedes } = createRequire(path.join(process.cwd(), 'target/interop/'))('aedes')

const [host, port] = process.argv.slice(2)
Aedes.createBroker().then(aedes => net.createServer(aedes.handle).listen(Number(port), host))
