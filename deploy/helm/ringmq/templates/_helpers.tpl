{{- define "ringmq.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "ringmq.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}
{{- define "ringmq.engine" -}}
{{ include "ringmq.name" . }}-engine
{{- end }}
{{- define "ringmq.engineLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-engine
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- /* Whether the chart runs the servers of the engine: "true" or nothing. */}}
{{- define "ringmq.runsEngine" -}}
{{- if and .Values.cluster.enabled (not .Values.cluster.servers) }}true{{ end }}
{{- end }}
{{- define "ringmq.servers" -}}
{{- if .Values.cluster.servers }}
{{- join "," .Values.cluster.servers }}
{{- else }}
{{- $engine := include "ringmq.engine" . }}
{{- range $number := until (int .Values.cluster.engine.replicas) }}{{ if $number }},{{ end }}nats://{{ $engine }}-{{ $number }}.{{ $engine }}:4222{{ end }}
{{- end }}
{{- end }}
{{- /* Spreads the pods with some labels over machines, and over zones as far as there are any. */}}
{{- define "ringmq.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: {{ .spread }}
  labelSelector:
    matchLabels:
      {{- .labels | nindent 6 }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- .labels | nindent 6 }}
{{- end }}
{{- /* What the broker writes for `engine = "spawn"`: JetStream that writes through to the disk, an account for the brokers
alone, and routes that need a password. */}}
{{- define "ringmq.engineConfiguration" -}}
server_name: $SERVER_NAME
listen: "0.0.0.0:4222"
# For probes; the network policy lets nobody else read it.
http: "0.0.0.0:8222"
max_payload: 1MB
jetstream { store_dir: "/data", sync_interval: always }
accounts { RINGMQ { jetstream: enabled, users: [ { user: {{ .Values.cluster.user | quote }}, password: $ENGINE_PASSWORD } ] } }
{{- if gt (int .Values.cluster.engine.replicas) 1 }}
cluster {
  name: {{ .Values.cluster.name | quote }}
  listen: "0.0.0.0:6222"
  no_advertise: true
  authorization { user: ringmq, password: $ROUTES_PASSWORD, timeout: 5 }
  routes: [
  {{- range $number := until (int .Values.cluster.engine.replicas) }}
    $ROUTE_{{ $number }}
  {{- end }}
  ]
}
{{- end }}
{{- end }}
