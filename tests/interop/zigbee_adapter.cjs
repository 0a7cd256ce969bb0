// For `node --require`: zigbee2mqtt with a stand-in in the place of the adapter, which no test has: it answers what is asked
// at the start. Everything else of zigbee2mqtt, MQTT above all, is as it is.
'use strict';

const { createRequire } = require('node:module');
const { Adapter } = createRequire(process.argv[1])('zigbee-herdsman/dist/adapter/adapter');

const ADDRESS = '0x00124b0000000001';
const ENDPOINT = 1;
const ACTIVE_ENDPOINTS_REQUEST = 0x0005;
const SIMPLE_DESCRIPTOR_REQUEST = 0x0004;
const SUCCESS = 0;

class StandIn extends Adapter {
  async start() { return 'resumed'; }
  async stop() {}
  async getCoordinatorIEEE() { return ADDRESS; }
  async getCoordinatorVersion() { return { type: 'stand-in', meta: {} }; }
  async supportsBackup() { return false; }
  async permitJoin() {}
  async sendZclFrameToAll() {}
  async getNetworkParameters() {
    const { panID, extendedPanID, channelList } = this.networkOptions;
    const extended = Buffer.from(extendedPanID).toString('hex');
    return { panID, extendedPanID: `0x${extended}`, channel: channelList[0], nwkUpdateID: 0 };
  }

  async sendZdo(_address, nwkAddress, request) {
    if (request === ACTIVE_ENDPOINTS_REQUEST) return [SUCCESS, { nwkAddress, endpointList: [ENDPOINT] }];
    if (request === SIMPLE_DESCRIPTOR_REQUEST) {
      const lists = { inClusterList: [], outClusterList: [] };
      return [SUCCESS, { nwkAddress, endpoint: ENDPOINT, profileId: 260, deviceId: 5, deviceVersion: 0, ...lists }];
    }
    throw new Error(`the stand-in has no answer to ZDO request ${request}`);
  }
}

Adapter.create = async (...options) => new StandIn(...options);
