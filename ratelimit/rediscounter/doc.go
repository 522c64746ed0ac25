// Package rediscounter counts and lends in Redis or Valkey, for a service that runs
// on several machines.
package rediscounter
