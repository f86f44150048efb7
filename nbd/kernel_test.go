// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// unhex reads hexadecimal with blanks.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// littleEndian skips where the golden bytes are not this machine's.
func littleEndian(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the golden bytes are little endian, this machine is not")
	}
}

// The bytes were written by hand from linux/nbd-netlink.h and netlink(7).
func TestKernelMessages(t *testing.T) {
	littleEndian(t)
	setup := Setup{
		Index: 3, Size: 1 << 30, BlockSize: 4096, Flags: KernelFlags,
		Timeout: KernelTimeout, DeadAfter: KernelDeadAfter, Backend: "ab", Sockets: []int{7, 8},
	}
	const common = `
		0c00 0400 0400000000000000
		0c00 0800 005e1a0000000000
		1c00 0780  0c00 0180 0800 0100 07000000  0c00 0180 0800 0100 08000000
		0700 0a00 616200 00`
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"connect": {setup.connect(), `
			0800 0100 03000000
			0c00 0200 0000004000000000
			0c00 0300 0010000000000000
			0c00 0500 6d01000000000000` + common},
		"reconfigure": {setup.reconfigure(), `0800 0100 03000000` + common},
		"only index":  {onlyIndex(3), `0800 0100 03000000`},
	} {
		if want := unhex(t, test.want); !bytes.Equal(test.got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", name, test.got, want)
		}
	}
	if KernelFlags != 1|1<<2|1<<3|1<<5|1<<6|1<<8 {
		t.Errorf("flags %#x", KernelFlags)
	}
	// In ticks of 1 ms the time must fit into a 32-bit long.
	if ms := KernelDeadAfter.Milliseconds(); ms > 1<<31-1 {
		t.Errorf("%v is too long for some kernels", KernelDeadAfter)
	}
	if got := seconds(1100 * time.Millisecond); got != 2 {
		t.Errorf("1.1 s is sent as %d", got)
	}
}

func TestKernelAnswers(t *testing.T) {
	littleEndian(t)
	status := unhex(t, `05010000
		2c00 0980
			1400 0180 0800 0100 00000000 0500 0200 01 000000
			1400 0100 0800 0100 02000000 0500 0200 00 000000`)
	for index, want := range map[int][2]bool{0: {true, true}, 1: {false, false}, 2: {false, true}} {
		connected, there, err := parseConnected(status, index)
		if err != nil || connected != want[0] || there != want[1] {
			t.Errorf("device %d: connected %v, there %v: %v", index, connected, there, err)
		}
	}
	dead := unhex(t, `04010000 0800 0100 05000000`)
	if index, ok := parseLinkDead(dead); !ok || index != 5 {
		t.Errorf("link dead: %d, %v", index, ok)
	}
	if _, ok := parseLinkDead(unhex(t, `01010000 0800 0100 05000000`)); ok {
		t.Error("the answer to connect was taken for a dead link")
	}
	family := unhex(t, `01020000
		0600 0100 1f00 0000
		0800 0200 6e626400
		2400 0700
			2000 0100
				1100 0100 6e62645f6d635f67726f757000 000000
				0800 0200 09000000`)
	id, group, err := parseFamily(family)
	if err != nil || id != 0x1f || group != 9 {
		t.Errorf("family %#x, group %d: %v", id, group, err)
	}
	if group, ok := parseNewDriver(family); !ok || group != 9 {
		t.Errorf("a driver that was loaded: group %d, %v", group, ok)
	}
	gone, other := bytes.Clone(family), bytes.Clone(family)
	gone[0] = 2
	copy(other[16:], "abc")
	for what, news := range map[string][]byte{"one that goes": gone, "another family": other, "nothing": nil} {
		if _, ok := parseNewDriver(news); ok {
			t.Errorf("%s was taken for a driver that was loaded", what)
		}
	}
}

func FuzzKernelAnswer(f *testing.F) {
	f.Add([]byte{5, 1, 0, 0, 8, 0, 9, 0x80, 4, 0, 1, 0})
	f.Add([]byte{1, 2, 0, 0, 6, 0, 1, 0, 31, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		parseConnected(b, 0)
		parseLinkDead(b)
		parseFamily(b)
		parseNewDriver(b)
	})
}

// fakeKernel is a driver that notes what it is asked, over files as sysfs has
// them.
func fakeKernel(t *testing.T, files map[string]string, answer func(command uint8) ([]byte, error)) (k *Kernel, asked *[]uint8) {
	t.Helper()
	asked = new([]uint8)
	k = &Kernel{kernelFiles: fakeFiles(t, files)}
	k.ask = func(command uint8, _ []byte) ([]byte, error) {
		*asked = append(*asked, command)
		return answer(command)
	}
	return k, asked
}

// fakeFiles are what sysfs has of nbd0.
func fakeFiles(t *testing.T, files map[string]string) kernelFiles {
	t.Helper()
	k := kernelFiles{sys: t.TempDir(), dev: t.TempDir()}
	for name, text := range files {
		k.show(t, name, text)
	}
	return k
}

// show makes a file of nbd0 in sysfs.
func (k *kernelFiles) show(t *testing.T, name, text string) {
	t.Helper()
	path := k.path(0, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func statusOf(connected byte) []byte {
	device := appendUint32(nil, attrDeviceIndex, 0)
	device = appendAttr(device, attrDeviceConnected, []byte{connected})
	return append([]byte{kernelStatus, 1, 0, 0}, appendAttr(nil, attrDevices|attrNested, appendAttr(nil, attrDevice|attrNested, device))...)
}

func TestKernelLook(t *testing.T) {
	k, _ := fakeKernel(t, map[string]string{
		"pid": "4711\n", "backend": "twinbd:c/v@a\n", "size": "2097152\n", "mq/0/cpu_list": "0", "mq/1/cpu_list": "1", "holders/dm-0": "",
	}, func(uint8) ([]byte, error) { return statusOf(1), nil })
	got, err := k.Look(0)
	want := DeviceState{
		There: true, Used: true, Attached: true, Backend: "twinbd:c/v@a", PID: 4711, Size: 1 << 30, Connections: 2, Holders: []string{"dm-0"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v: %v", got, err)
	}
	k, _ = fakeKernel(t, nil, func(uint8) ([]byte, error) { return statusOf(0), nil })
	if got, err := k.Look(0); err != nil || !reflect.DeepEqual(got, DeviceState{There: true}) {
		t.Errorf("got %+v: %v", got, err)
	}
}

func TestKernelErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{fs.ErrPermission, "attach /dev/nbd0: permission denied; hint: run twinbd as root, or give it CAP_SYS_ADMIN"},
		{ErrDeviceBusy, "attach /dev/nbd0: the kernel says that it is in use"},
	} {
		k, asked := fakeKernel(t, nil, func(uint8) ([]byte, error) { return nil, test.err })
		err := k.Connect(Setup{})
		if err == nil || err.Error() != test.want || !errors.Is(err, test.err) {
			t.Errorf("%v, want %s", err, test.want)
		}
		if !reflect.DeepEqual(*asked, []uint8{kernelConnect}) {
			t.Errorf("asked %v", *asked)
		}
	}
}

func TestKernelTune(t *testing.T) {
	answer := func(uint8) ([]byte, error) { return nil, nil }
	k, _ := fakeKernel(t, map[string]string{
		"queue/max_hw_sectors_kb": "32768\n", "queue/max_sectors_kb": "128\n", "queue/scheduler": "[mq-deadline] none\n",
		"queue/discard_max_bytes": "2199023255040\n", "queue/nr_requests": "128\n", "mq/0/cpu_list": "0\n", "mq/1/cpu_list": "1\n",
	}, answer)
	if got := fmt.Sprint(k.Tune(0)); got != "[max_sectors_kb 256 discard_max_bytes 67108864 scheduler none nr_requests 64]" {
		t.Error(got)
	}
	if text, _ := k.read(0, "queue/max_sectors_kb"); text != "256" {
		t.Errorf("max_sectors_kb is %s", text)
	}
	k, _ = fakeKernel(t, map[string]string{
		"queue/max_hw_sectors_kb": "128\n", "queue/max_sectors_kb": "64\n", "queue/scheduler": "[none] mq-deadline\n", "queue/nr_requests": "128\n",
	}, answer)
	if got := fmt.Sprint(k.Tune(0)); got != "[max_sectors_kb 128 scheduler none]" {
		t.Error(got)
	}
	k, _ = fakeKernel(t, nil, answer)
	if got := fmt.Sprint(k.Tune(0)); !strings.Contains(got, "max_sectors_kb stays") {
		t.Error(got)
	}
}

func TestDeviceIndex(t *testing.T) {
	for path, want := range map[string]int{"/dev/nbd0": 0, "/dev/nbd15": 15, "/dev/nbd": -1, "/dev/sda": -1, "/dev/nbd-1": -1, "/dev/nbd0p1": -1} {
		n, err := DeviceIndex(path)
		if (err != nil) != (want < 0) || err == nil && n != want {
			t.Errorf("%s: %d, %v", path, n, err)
		}
	}
}
