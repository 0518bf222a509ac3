"""Storage endpoints: where files lie, and how bytes get there and away; one small class for each kind of URL."""

from pandaserver.dataservice.ddm.storage.places import below_root as below_root
from pandaserver.dataservice.ddm.storage.places import file_path as file_path
from pandaserver.dataservice.ddm.storage.places import file_url as file_url
from pandaserver.dataservice.ddm.storage.protocol import Credentials as Credentials
from pandaserver.dataservice.ddm.storage.protocol import Stat as Stat
from pandaserver.dataservice.ddm.storage.stores import Stores as Stores
