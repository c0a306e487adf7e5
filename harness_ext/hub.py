"""Models by hub name: what of them is on this machine, and a bounded wait for the hub's word on the others."""

from pathlib import Path
from threading import Thread

from ..core.errors import ValueshiftError
from ..core.limits import HUB_SECONDS


def checkpoint_folder(name: str, revision: str | None = "main") -> Path | None:
    """The local folder of a checkpoint: the path itself, or the hub snapshot on this machine; None if there is neither."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def refuse_absent(*names: str, revision: str | None = None) -> None:
    """Refuse models that are neither here nor on the hub, before the libraries are imported that would load them.

    Raises:
        ValueshiftError: names the first one, and says whether it is the name or the network.
    """
    for name in names:
        absent = not Path(name).exists() and checkpoint_folder(name, revision) is None
        if absent and (trouble := hub_trouble(name, revision)):
            raise ValueshiftError(f"cannot load {name!r}: {trouble}")


def hub_trouble(name: str, revision: str | None = None) -> str | None:
    """Why a model cannot be had from the hub, with the remedy; None where the hub has it.

    The answer comes within `HUB_SECONDS`, whatever the network does: libraries wait for each part of an answer, and for the
    name server, as long again.
    """
    found = ["the network or the hub does not answer"]
    asking = Thread(target=lambda: found.append(_asked(name, revision)), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    if not (trouble := found[-1]):
        return None
    from huggingface_hub.constants import ENDPOINT

    if len(found) == 1:
        trouble += f" within {HUB_SECONDS:g} seconds ({ENDPOINT}); connect, or give a checkpoint folder or a model that is here"
    return trouble


def _asked(name: str, revision: str | None) -> str:
    """The trouble that the hub or the library names; empty for none."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    try:
        HfApi().model_info(name, revision=revision, timeout=2 * HUB_SECONDS)
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=2 * HUB_SECONDS)
    except HFValidationError:
        return "there is no such folder, and no hub model can be named so; give a checkpoint folder or a hub name"
    except OfflineModeIsEnabled:
        return (
            "it is not on this machine and HF_HUB_OFFLINE is set; unset that, or give a checkpoint folder or a hub name "
            "that is on this machine"
        )
    except GatedRepoError:
        return f"its owner gives access on request; ask for it at {ENDPOINT}/{name} and log in with `hf auth login`"
    except RevisionNotFoundError:
        return f"the hub has no revision '{revision}' of it; give one that it has"
    except EntryNotFoundError:
        return "the hub has no config.json of it; of an adapter, download it and give its folder"
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            return (
                f"the hub ({ENDPOINT}) has no such model, or a private one; give a checkpoint folder or a hub name, or log in "
                f"with `hf auth login`"
            )
        return f"the hub ({ENDPOINT}) answers with status {error.response.status_code}; try again later"
    except Exception as error:  # noqa: BLE001 of whichever library carries it
        return f"the hub ({ENDPOINT}) cannot be reached ({type(error).__name__}); check the network, or give a checkpoint folder"
    return ""
