// Judges proofs, checkpoints and tiles with golang.org/x/mod/sumdb, which Acta has no part in.
//
//	verify proofs          proofs as JSON lines on standard input
//	verify mirror URL KEY  follows a log: checkpoint, tiles, entries
//
// The token, if one is needed, is in ACTA_TEST_TOKEN.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type proof struct {
	Size, Index, From int64
	Root, FromRoot    tlog.Hash
	Leaf              *tlog.Hash
	Proof             []tlog.Hash
	Holds             bool
}

func main() {
	var said string
	var err error
	switch os.Args[1] {
	case "proofs":
		said, err = proofs()
	case "mirror":
		said, err = mirror(os.Args[2], os.Args[3])
	default:
		err = fmt.Errorf("unknown mode %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func proofs() (string, error) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	count := 0
	for lines.Scan() {
		var p proof
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return "", err
		}
		var err error
		if p.Leaf != nil {
			err = tlog.CheckRecord(p.Proof, p.Size, p.Root, p.Index, *p.Leaf)
		} else {
			err = tlog.CheckTree(p.Proof, p.Size, p.Root, p.From, p.FromRoot)
		}
		if (err == nil) != p.Holds {
			return "", fmt.Errorf("%s: %v", lines.Text(), err)
		}
		count++
	}
	return strconv.Itoa(count), lines.Err()
}

type tiles struct{ url string }

func (t tiles) Height() int                                   { return 8 }
func (t tiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

// The published path has a height in front of the level; C2SP tlog-tiles has none.
func (t tiles) ReadTiles(wanted []tlog.Tile) (found [][]byte, err error) {
	for _, tile := range wanted {
		data, err := get(t.url + "/tile/" + strings.TrimPrefix(tile.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func get(url string) ([]byte, error) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	if token := os.Getenv("ACTA_TEST_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

func mirror(url, key string) (string, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return "", err
	}
	text, err := get(url + "/checkpoint")
	if err != nil {
		return "", err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return "", err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return "", fmt.Errorf("not a checkpoint of the log: %q", opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return "", err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return "", err
	}
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{url})
	for index := int64(0); index < size; index++ {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return "", err
		}
		path, err := tlog.ProveRecord(size, index, reader)
		if err != nil {
			return "", err
		}
		if err := tlog.CheckRecord(path, size, root, index, leaf[0]); err != nil {
			return "", err
		}
		entry, err := entryAt(url, index, size)
		if err != nil {
			return "", err
		}
		if tlog.RecordHash(entry) != leaf[0] {
			return "", fmt.Errorf("entry %d is not what the tree has", index)
		}
	}
	return fmt.Sprintf("%d", size), nil
}

var kept = map[string][]byte{}

func entryAt(url string, index, size int64) ([]byte, error) {
	tile := tlog.Tile{H: 8, L: -1, N: index / 256, W: 256}
	if rest := size - tile.N*256; rest < 256 {
		tile.W = int(rest)
	}
	path := "/tile/entries/" + strings.TrimPrefix(tile.Path(), "tile/8/data/")
	if kept[path] == nil {
		data, err := get(url + path)
		if err != nil {
			return nil, err
		}
		kept[path] = data
	}
	rest := bytes.NewReader(kept[path])
	for n := int64(0); ; n++ {
		var length [2]byte
		if _, err := io.ReadFull(rest, length[:]); err != nil {
			return nil, err
		}
		entry := make([]byte, int(length[0])<<8|int(length[1]))
		if _, err := io.ReadFull(rest, entry); err != nil {
			return nil, err
		}
		if n == index%256 {
			return entry, nil
		}
	}
}
