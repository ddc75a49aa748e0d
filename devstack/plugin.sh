#!/bin/bash
#
# Lambda in DevStack: which function of lib/lambda runs in which phase, and nowhere more.
#
# Sourced by DevStack as ``plugin.sh MODE [PHASE]``.

# Save trace setting
_XTRACE_LAMBDA_PLUGIN=$(set +o | grep xtrace)
set +o xtrace

source "$(dirname "${BASH_SOURCE[0]}")/lib/lambda"

case "$1 $2" in
    "stack pre-install")
        echo_summary "Preparing for Lambda"
        prepare_lambda
        ;;
    "stack install")
        echo_summary "Installing Lambda"
        install_lambda
        ;;
    "stack post-config")
        echo_summary "Configuring Lambda"
        create_lambda_accounts
        configure_lambda
        ;;
    "stack extra")
        echo_summary "Starting Lambda"
        init_lambda
        start_lambda
        ;;
    "stack test-config")
        check_lambda
        ;;
    "unstack ")
        stop_lambda
        ;;
    "clean ")
        cleanup_lambda
        ;;
esac

# Restore xtrace
$_XTRACE_LAMBDA_PLUGIN
