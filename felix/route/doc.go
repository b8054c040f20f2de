// Package route makes the routes of a felix.State true in the main routing
// table. It compares what the kernel has with what is wanted and writes the
// difference: additions first, then changes, then deletions.
//
// It never decides which routes there are, never touches a route of another
// protocol but those that the State names (felix.State.Strange), and deletes nothing while felix.State.Prune is false. When somebody
// else owns the same prefix with the same metric it leaves him alone and says
// so; when somebody overwrites a route that this process had written, it puts
// it back.
//
// Kernel footprint: routes of the main table, both families, protocol
// model.RouteProtocol, metric felix.DefaultRouteMetric. Requests are batched,
// one message a changed route. Notifications of our own writes are filtered in
// the kernel.
//
// How does a fresh process recognise this as ours? By the protocol number. The
// kernel is asked for routes with that number alone; those that are as wanted
// are not touched.
package route
