// SPDX-License-Identifier: Apache-2.0
//
// How clients talk to the daemon of their namespace: over a stream socket, one request and one
// response a connection, each a length of 4 bytes (little-endian) and so many bytes of JSON.
//
//   request:   {"version": 1, "verb": "create", "queue": "orders", "options": {…}}
//   response:  {"ok": true, …} or {"ok": false, "code": 17, "category": "shmq", "what": "…",
//              "why": "…", "remedy": "…"}
//
// The doorbell is a datagram socket beside it: whoever sends a datagram, whatever is in it, says
// "look at your queues"; the name of the queue as its content says which.
#pragma once

#include <cstdint>
#include <shmq/error.hpp>
#include <string>
#include <vector>

namespace shmq::control {

inline constexpr int protocol_version = 1;
inline constexpr std::uint32_t frame_bytes_max = 1U << 20;
inline constexpr const char* control_socket_name = "control";
inline constexpr const char* doorbell_socket_name = "doorbell";

// Verbs. All but status need the peer to be the daemon's user, root, or allowed to by the
// configuration; drain and reload always the daemon's user or root.
inline constexpr const char* verb_create = "create";  // "queue", "options"; answered once it serves
inline constexpr const char* verb_remove = "remove";  // "queue"; with its journal
// "queue"; with a descriptor of the backup, sent along (SCM_RIGHTS); answered once it serves
inline constexpr const char* verb_restore = "restore";
inline constexpr const char* verb_status = "status";
inline constexpr const char* verb_reload = "reload";
inline constexpr const char* verb_drain = "drain";  // flush, close, refuse new queues, end

/// Where the daemon of a namespace may have its sockets, the likeliest first:
/// SHMQ_RUNTIME_DIR if set, and nothing else; $XDG_RUNTIME_DIR/shmq; /run/shmq; each with the
/// namespace below it.
std::vector<std::string> runtime_directories(const std::string& name_space);

/// An error as the members of a response, and back.
std::string error_response(const Error& error);
Error error_from(const std::string& response, const std::string& what);

}  // namespace shmq::control
