// Package servers starts the database servers that the tests run against: those
// that are installed on this machine, as processes of the test binary, on unix
// sockets in temporary directories; a cluster of Redis on ports of the loopback
// interface. No container is needed, and no service of the machine is touched. It
// is for tests only.
//
// A server runs as an unprivileged user, also where the tests are run by root,
// and it ends with the test binary, however that ends.
package servers
