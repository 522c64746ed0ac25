package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// A RedisCluster is some servers of Redis or Valkey that share the keys among
// them. Unlike other servers they listen on ports of the loopback interface, since
// the nodes of a cluster know each other by those.
type RedisCluster struct {
	nodes []*Redis
	addrs []string
}

// StartRedisCluster starts a cluster of n masters, in about two seconds.
func StartRedisCluster(n int) (*RedisCluster, error) {
	c := new(RedisCluster)
	if err := c.start(n); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *RedisCluster) start(n int) error {
	const slots = 16384
	for i := range n {
		port, err := FreePort()
		if err != nil {
			return err
		}
		bus, err := FreePort()
		if err != nil {
			return err
		}
		r, err := StartRedis("--bind", "127.0.0.1", "--port", port, "--cluster-enabled", "yes", "--cluster-port", bus)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, r)
		c.addrs = append(c.addrs, net.JoinHostPort("127.0.0.1", port))
		for _, command := range []string{
			fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*slots/n, (i+1)*slots/n-1),
			fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1),
		} {
			if err := c.tell(i, command, "+OK"); err != nil {
				return err
			}
		}
		if i > 0 {
			if err := c.tell(0, "CLUSTER MEET 127.0.0.1 "+port+" "+bus, "+OK"); err != nil {
				return err
			}
		}
	}
	for i := range n {
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			err := c.tell(i, "CLUSTER INFO", "cluster_state:ok")
			if err == nil {
				err = c.tell(i, "CLUSTER INFO", fmt.Sprintf("cluster_known_nodes:%d\r", n))
			}
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return err
			}
		}
	}
	return nil
}

// tell sends a command to a node and requires that the answer has a text.
func (c *RedisCluster) tell(node int, command, want string) error {
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", c.addrs[node])
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "%s\r\nQUIT\r\n", command); err != nil {
		return err
	}
	var answer strings.Builder
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		answer.WriteString(lines.Text() + "\r\n")
	}
	if !strings.Contains(answer.String(), want) {
		return fmt.Errorf("%s: %s", command, &answer)
	}
	return nil
}

// FreePort returns a port of the loopback interface on which nobody listens.
func FreePort() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Addrs returns the addresses of the nodes.
func (c *RedisCluster) Addrs() []string { return c.addrs }

// Close ends the servers and removes all that they have kept.
func (c *RedisCluster) Close() error {
	var errs []error
	for _, r := range c.nodes {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}
