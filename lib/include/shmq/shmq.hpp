// SPDX-License-Identifier: Apache-2.0
//
// Everything of libshmq: a message queue between processes of one Linux host.
#pragma once

#include <shmq/alarm.hpp>
#include <shmq/backlog.hpp>
#include <shmq/backup.hpp>
#include <shmq/consumer.hpp>
#include <shmq/daemon.hpp>
#include <shmq/error.hpp>
#include <shmq/housekeeping.hpp>
#include <shmq/info.hpp>
#include <shmq/journal.hpp>
#include <shmq/options.hpp>
#include <shmq/producer.hpp>
#include <shmq/queue.hpp>
#include <shmq/version.hpp>
