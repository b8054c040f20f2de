package dashboards

var (
	cluster = Variable{"cluster", "muslin_build_info"}
	node    = Variable{"node", "muslin_ready"}
	peer    = Variable{"peer", "muslin_bgp_peer_established"}
)

const (
	graph = "timeseries"
	stat  = "stat"
)

func one(expr, legend string) []Query { return []Query{{expr, legend}} }

// Dashboards are all that there are.
var Dashboards = []Dashboard{
	{"fabric", "Fabric", "BGP of all nodes: sessions, prefixes, convergence.", []Variable{cluster, node, peer}, []Panel{
		{"Agents that are ready", "Of all that are scraped.", "percentunit", stat, one(`avg(muslin_ready{$A})`, "")},
		{"Sessions established", "Of all that are configured.", "percentunit", stat,
			one(`sum(muslin_bgp_sessions{$A,state="Established"}) / sum(muslin_bgp_sessions{$A})`, "")},
		{"Isolated nodes", "Nodes with sessions of which none is established.", "short", stat,
			one(`sum((sum by (instance) (muslin_bgp_sessions{$A,state="Established"}) == bool 0) * (sum by (instance) (muslin_bgp_sessions{$A}) > bool 0))`, "")},
		{"Versions", "More than one: an upgrade is under way, or has stopped.", "short", stat, one(`count(count by (version) (muslin_build_info{$C}))`, "")},
		{"Sessions by kind and state", "Those of the mesh and with all others.", "short", graph, one(`sum by (kind, state) (muslin_bgp_sessions{$A}) > 0`, "{{kind}} {{state}}")},
		{"Sessions with routers and reflectors", "1 while established.", "short", "state-timeline",
			one(`muslin_bgp_peer_established{$A,peer=~"$peer"}`, "{{node}} {{peer}}")},
		{"Why sessions are not established", "Counted by the reasons of docs/troubleshooting.md.", "short", graph,
			one(`sum by (reason) (muslin_bgp_peer_error{$A,peer=~"$peer"})`, "{{reason}}")},
		{"Sessions lost", "An hour, by node and peer.", "short", graph, one(`increase(muslin_bgp_peer_flaps_total{$A,peer=~"$peer"}[1h])`, "{{node}} {{peer}}")},
		{"Prefixes by peer", "Received, accepted and sent.", "short", graph,
			one(`sum by (peer, direction) (muslin_bgp_peer_prefixes{$A,peer=~"$peer"})`, "{{peer}} {{direction}}")},
		{"Routes", "Prefixes learned, and routes in the kernel with those of pods: the node with the fewest, and the most.", "short", graph, []Query{
			{`min by (state) (muslin_bgp_routes{$A})`, "{{state}}, fewest"}, {`max by (state) (muslin_bgp_routes{$A})`, "{{state}}, most"},
		}},
		{"Prefixes refused", "By import rules, and next hops that IPAM does not confirm.", "short", graph, []Query{
			{`sum by (peer, reason) (muslin_bgp_refused_prefixes{$A})`, "{{peer}} {{reason}}"}, {`sum(muslin_bgp_origin_refused{$A})`, "origin not confirmed"},
		}},
		{"Convergence", "From news of a peer until the kernel has what follows.", "s", graph, []Query{
			{`histogram_quantile(0.5, sum by (le) (rate(muslin_convergence_seconds_bucket{$A}[$R])))`, "median"},
			{`histogram_quantile(0.99, sum by (le) (rate(muslin_convergence_seconds_bucket{$A}[$R])))`, "99 of 100"},
		}},
		{"BFD", "1 while BFD says that the peer is there.", "short", "state-timeline", one(`muslin_bfd_session_up{$A,peer=~"$peer"}`, "{{node}} {{peer}}")},
		{"BGP messages", "A second, by direction.", "mps", graph, one(`sum by (direction) (rate(muslin_bgp_peer_messages_total{$A,peer=~"$peer"}[$R]))`, "{{direction}}")},
	}},
	{"node", "Node", "An agent: pods' networks, the kernel, policy, and what it costs.", []Variable{cluster, node}, []Panel{
		{"Ready", "1 once the agent waits for nothing.", "short", stat, one(`min(muslin_ready{$A})`, "")},
		{"Problems", "Objects and fields that are not honoured.", "short", stat, one(`max(muslin_problems{$A})`, "")},
		{"DELs that wait", "Recorded and not yet done.", "short", stat, one(`sum(muslin_cni_spool_entries{$A})`, "")},
		{"Blocks", "Of the node, confirmed.", "short", stat, one(`sum(muslin_ipam_blocks{$A,state="confirmed"})`, "")},
		{"CNI requests", "A second, by verb and code; 0 is success, 11 \"try again later\".", "reqps", graph,
			one(`sum by (verb, code) (rate(muslin_cni_seconds_count{$A}[$R]))`, "{{verb}} {{code}}")},
		{"Time of CNI requests", "Nine of ten are faster.", "s", graph, one(`histogram_quantile(0.9, sum by (verb, le) (rate(muslin_cni_seconds_bucket{$A}[$R])))`, "{{verb}}")},
		{"Desired states that were refused", "A second, by sink.", "ops", graph, one(`sum by (sink) (rate(muslin_apply_total{$A,outcome="error"}[$R])) or sum by (sink) (rate(muslin_apply_total{$A,outcome="ok"}[$R])) * 0`, "{{sink}}")},
		{"Time of sinks", "Nine of ten desired states are there sooner.", "s", graph, one(`histogram_quantile(0.9, sum by (sink, le) (rate(muslin_apply_seconds_bucket{$A}[$R])))`, "{{sink}}")},
		{"Repairs", "An hour: what somebody else took away or changed in the kernel.", "short", graph, one(`sum by (kind) (increase(muslin_kernel_repairs_total{$A}[1h]))`, "{{kind}}")},
		{"Routes", "Prefixes learned, and routes in the kernel with those of pods.", "short", graph, one(`muslin_bgp_routes{$A}`, "{{node}} {{state}}")},
		{"Network policy", "What the kernel was told.", "short", graph, []Query{
			{`sum(muslin_policy_chains{$A})`, "chains"}, {`sum(muslin_policy_endpoints{$A})`, "pods"},
			{`sum(muslin_policy_sets{$A})`, "sets"}, {`sum(muslin_policy_set_members{$A})`, "members of sets"},
		}},
		{"Memory", "Resident, of the agent.", "bytes", graph, one(`process_resident_memory_bytes{$A,job="muslin-agent"}`, "{{node}}")},
		{"CPU", "Seconds a second, of the agent.", "short", graph, one(`rate(process_cpu_seconds_total{$A,job="muslin-agent"}[$R])`, "{{node}}")},
		{"Goroutines", "Of the agent.", "short", graph, one(`go_goroutines{$A,job="muslin-agent"}`, "{{node}}")},
	}},
	{"ipam", "Addresses", "Pools, blocks and addresses, as the controller counts them.", []Variable{cluster}, []Panel{
		{"Addresses in use", "Of all pools.", "short", stat, one(`sum(ipam_allocations_in_use{$C})`, "")},
		{"Blocks", "That nodes have.", "short", stat, one(`sum(ipam_blocks{$C})`, "")},
		{"Addresses borrowed", "From blocks of other nodes.", "short", stat, one(`sum(ipam_allocations_borrowed{$C})`, "")},
		{"Addresses without a pod", "Given back after the grace.", "short", stat, one(`sum(ipam_allocations_gc_candidates{$C})`, "")},
		{"Pools", "Share of their addresses that is in use or reserved.", "percentunit", graph,
			one(`(sum by (ippool) (ipam_allocations_in_use{$C}) + max by (ippool) (ipam_ippool_reserved{$C})) / max by (ippool) (ipam_ippool_size{$C})`, "{{ippool}}")},
		{"Addresses in use by pool", "Without those reserved.", "short", graph, one(`sum by (ippool) (ipam_allocations_in_use{$C})`, "{{ippool}}")},
		{"Blocks that are free", "Of each pool; with none a new node borrows.", "short", graph, one(`max by (ippool) (muslin_ippool_blocks_free{$C})`, "{{ippool}}")},
		{"Addresses in use by node", "The ten nodes that have most.", "short", graph, one(`topk(10, ipam_allocations_per_node{$C})`, "{{node}}")},
		{"Blocks by node", "The ten nodes that have most.", "short", graph, one(`topk(10, ipam_blocks_per_node{$C})`, "{{node}}")},
		{"Given back", "Addresses an hour: leaked ones, and those of nodes that are gone.", "short", graph, []Query{
			{`sum(increase(ipam_allocations_gc_reclamations{$C}[1h])) or vector(0)`, "leaked"}, {`sum(increase(muslin_controller_freed_addresses_total{$C}[1h]))`, "of nodes that are gone"},
		}},
	}},
	{"controller", "Controller", "The controller: who leads, what it writes, and what it costs.", []Variable{cluster}, []Panel{
		{"Leaders", "1 is right.", "short", stat, one(`sum(muslin_leader{$C})`, "")},
		{"Objects with problems", "Their condition Accepted or Allocatable is not true.", "short", stat, one(`sum(muslin_controller_objects_with_problems{$C})`, "")},
		{"Conditions written", "A second, by kind and outcome.", "ops", graph,
			one(`sum by (kind, outcome) (rate(muslin_controller_condition_writes_total{$C}[$R]))`, "{{kind}} {{outcome}}")},
		{"Version", "By job, with the number of processes.", "short", graph, one(`count by (job, version) (muslin_build_info{$C})`, "{{job}} {{version}}")},
		{"Memory", "Resident, of the controller.", "bytes", graph, one(`process_resident_memory_bytes{$C,job="muslin-controller"}`, "{{instance}}")},
		{"CPU", "Seconds a second, of the controller.", "short", graph, one(`rate(process_cpu_seconds_total{$C,job="muslin-controller"}[$R])`, "{{instance}}")},
	}},
}
